"""The metrics of a set of results as sections of tables, with intervals."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regrow.report.files import Json, Place, Source, in_form, read_json
from regrow.report.parts import Cell, Fold, Note, Section, Table
from regrow.report.words import (
    CANNOT_SAY,
    LABELS,
    NOTHING_REGREW,
    estimate,
    notes,
    p_value,
    quantity,
)

PLACE = ("Score", "Sparsity", "Train questions", "Parameters kept")
HEADLINES = (
    *("nll_scaled", "information", "nll", "ece", "lac_size_0.1"),
    *("agreement", "recovery"),
)
GIVEN = {  # what these say of some models was not measured, but follows from what they are
    "agreement": {"teacher": "100"},
    "kl": {"teacher": "0"},
    "kl_scaled": {"teacher": "0"},
    "recovery": {"teacher": "100", "pruned": "0"},
    "information": {"teacher": "100"},
}


def summary(source: Source) -> Section | None:
    """`summary.json`: what a person decides by."""
    if not source.has("summary"):
        return None
    with source.read("summary") as found:
        kept = [match[1] for key in found if (match := re.fullmatch(r"kl(\d+)", key))]
        rows = [
            [
                Cell(f"{share} %"),
                Cell(f"{found[f'ce{share}']:.1f}"),
                Cell(f"{found[f'kl{share}']:.1f}"),
                _ends(found, share),
            ]
            for share in kept
        ]
        beside = f"teacher {found['teacher']:.1f} %, longest choice {found['longest']:.1f} %"
    head = ["Parameters kept", "Cross-entropy, %", "KL, %", "KL - CE, points"]
    note = f"Test accuracy beside {beside}; the interval of the difference is paired."
    return Section("summary", "Summary", [Table("Accuracy in short", head, rows, note)])


def claims(source: Source) -> Section:
    """`claims.json`: the paper's claims with estimate, verdict and reason."""
    with source.read("claims") as judged:
        rows = [
            [
                Cell(claim["claim"]),
                Cell(f"{claim['quantity']}: {estimate(claim)}"),
                Cell("", verdict=claim["verdict"]),
                Cell(claim["why"]),
            ]
            for claim in judged.values()
        ]
        found = [str(claim["verdict"]) for claim in judged.values()]
    counts = [f"{found.count(one)} {one}" for one in sorted(set(found), reverse=True)]
    head = ["The paper's claim", "Estimate here", "Verdict", "Why, and what it would take"]
    caption = "The paper's claims, judged on these results"
    table = Table(caption, head, rows, look="stack")
    first = Note(f"{', '.join(counts)}.", quiet=False)
    return Section("claims", "Claims and verdicts", [first, table])


def tests(source: Source) -> Section:
    """`paired.json`: what was named before the run, and what was looked for after."""
    with source.read("comparison") as comparison, source.read("paired") as paired:
        margin = comparison.get("margin", paired.get("margin"))
        rows = {
            key: [
                *place_fields(source, key),
                _gap(source, key, comparison["sweep"][key]["difference"], "fraction"),
                Cell(count(cell["only_distill_right"])),
                Cell(count(cell["only_finetune_right"])),
                Cell(p_value(cell["p"])),
                Cell(p_value(cell["holm_p"])),
                Cell("", verdict=cell["verdict"]),
                Cell(_points(cell["detectable"])),
            ]
            for key, cell in paired["sweep"].items()
        }
    head = [
        *(*PLACE, "KL - CE, points", "Only KL right", "Only CE right"),
        *("p", "p, Holm", "Verdict", "Detectable, points"),
    ]
    named = {key: place.named for key, place in source.places.items()}
    tables = []
    for caption, kinds, family in (
        ("Named before the run", ("primary", "secondary"), "all cells named before the run"),
        ("Looked for after", ("exploratory",), "all cells of the grid"),
    ):
        chosen = [row for key, row in rows.items() if named.get(key, "exploratory") in kinds]
        note = (
            f"p: exact, two-sided, paired by question; Holm: adjusted for {family}. Verdict at a "
            f"margin of {_points(margin)} points. Detectable: the smallest true difference that "
            "such a test finds in 4 of 5 repetitions."
        )
        if chosen:
            tables.append(Table(caption, head, chosen, note))
    if set(named.values()) <= {"exploratory"}:
        first = Note("No contrast was named before the run: all of these were looked for after.")
        return Section("paired", "Paired tests", [first, *tables])
    return Section("paired", "Paired tests", tables)


def accuracy(source: Source) -> Section:
    """`comparison.json`: a row a cell, a column a method, and the difference."""
    with source.read("comparison") as comparison:
        rows = [
            [
                *place_fields(source, key),
                *(Cell(quantity(cell[method], "fraction")) for method in LABELS),
                _gap(source, key, cell["difference"], "fraction"),
            ]
            for key, cell in comparison["sweep"].items()
        ]
        below = notes(comparison)
    head = [*PLACE, *LABELS.values(), "KL - CE, points"]
    floor = (
        "Here and below, a difference in bold has an interval that does not hold 0; no correction "
        "is made for how many there are. The paired tests make it. Nothing regrew: no student "
        "clearly beats the longest choice and the pruned model that it started from."
    )
    table = Table("Test accuracy, %", head, rows)
    return Section("accuracy", "Accuracy", [table, Note(below), Note(floor)])


def uncertainty(source: Source) -> Section:
    """`measures.json`: a table a measure; the main ones first, the others folded away."""
    with source.read("measures") as found:
        sweep = found["sweep"]
        # Earlier results name no label and no unit.
        said = found.get("measures") or {name: {} for name in next(iter(sweep.values()))}
        tables = {name: _measure(source, name, words, sweep) for name, words in said.items()}
        below = list(_below_measures(found))
    first = [tables[name] for name in HEADLINES if name in tables]
    rest = [table for name, table in tables.items() if name not in HEADLINES]
    folded = [Fold(f"All other measures ({len(rest)} tables)", rest)] if rest else []
    return Section("uncertainty", "Uncertainty", [*first, *below, *folded])


def elsewhere(source: Source) -> Section | None:
    """`transfer.json`: a table a measure, a row a set and cell."""
    if not source.has("transfer"):
        return None
    changes = {"finetune_change": "CE - teacher", "distill_change": "KL - teacher"}
    units = {"accuracy": ("Accuracy, %", "fraction"), "kl": ("KL from the teacher, nats", "nats")}
    tables = []
    with source.read("transfer") as found:
        for measure, (caption, unit) in units.items():
            first = next(iter(next(iter(found.values()))["sweep"].values()))[measure]
            methods = [method for method in LABELS if method in first]
            gaps = [gap for gap in ("difference", *changes) if gap in first]
            rows = [
                [
                    Cell(f"{name} (n = {of_set['questions']:,})"),
                    *place_fields(source, key)[:3],
                    *(Cell(quantity(cell[measure][method], unit)) for method in methods),
                    *(_difference(cell[measure][gap], unit) for gap in gaps),
                ]
                for name, of_set in found.items()
                for key, cell in of_set["sweep"].items()
            ]
            columns = [changes.get(gap, "KL - CE") for gap in gaps]
            head = ["Set", *PLACE[:3], *(LABELS[method] for method in methods), *columns]
            tables.append(Table(f"Other tasks: {caption}", head, rows))
    return Section("transfer", "What it costs elsewhere", tables)


def read_control_tables(folder: Path) -> list[Table]:
    """`controls.json` of a folder of sets: the arms and the contrasts; none where there is none."""
    path = folder / "controls.json"
    if not path.exists():
        return []
    found = read_json(path)
    with in_form(path):
        arms = [
            [
                *(Cell(name), Cell(arm["study"]), Cell(f"{100 * arm['retention']:.1f} %")),
                *(
                    Cell(quantity(arm["accuracy"], "fraction")),
                    Cell(quantity(arm["nll"], "choices")),
                ),
            ]
            for name, arm in found["arms"].items()
        ]
        contrasts = [
            [
                *(Cell(one["question"]), Cell(f"{one['arm']} - {one['other']}")),
                *(_difference(one["accuracy"], "fraction"), _difference(one["nll"], "choices")),
                *(Cell(p_value(one["p"])), Cell(p_value(one["holm_p"]))),
                Cell("", verdict=one["verdict"]),
            ]
            for one in found["contrasts"]
        ]
        note = (
            "p: exact, two-sided; Holm: adjusted for all contrasts. Verdict on accuracy at a "
            f"margin of {_points(found['margin'])} points."
        )
    columns = ["Question", "Difference", "Accuracy, points", "NLL, nats", "p", "p, Holm", "Verdict"]
    return [
        Table("Arms", ["Arm", "Set", "Parameters kept", "Accuracy, %", "NLL, nats"], arms),
        Table("Contrasts, paired by question", columns, contrasts, note),
    ]


def place_fields(source: Source, key: str) -> list[Cell]:
    """The first fields of a cell's row, under `PLACE`."""
    place: Place = source.places[key]
    kept = CANNOT_SAY if place.retention is None else f"{100 * place.retention:.1f} %"
    words = (place.score, f"{place.sparsity:g}", f"{place.train_size:,}", kept)
    return [Cell(word) for word in words]


def count(value: int | None) -> str:
    """A number of things."""
    return CANNOT_SAY if value is None else f"{value:,}"


def _measure(source: Source, name: str, said: Json, sweep: Json) -> Table:
    label, unit = said.get("label", name.replace("_", " ")), said.get("unit", "")
    shown = "%" if unit == "fraction" else unit
    better = f" ({said['better']} is better)" if said.get("better") else ""

    def fields(key: str, values: Mapping[str, Any]) -> Iterator[Cell]:
        for method in LABELS:
            given = GIVEN.get(name, {}).get(method)
            yield Cell(f"{given} by definition" if given else quantity(values.get(method), unit))
        yield _gap(source, key, values.get("difference"), unit)

    gap = "points" if unit == "fraction" else unit
    return Table(
        f"{label[:1].upper()}{label[1:]}{f', {shown}' if shown else ''}{better}",
        [*PLACE, *LABELS.values(), f"KL - CE{f', {gap}' if gap else ''}"],
        [
            [*place_fields(source, key), *fields(key, cell.get(name, {}))]
            for key, cell in sweep.items()
        ],
    )


def _below_measures(found: Json) -> Iterator[Note]:
    closeness = found.get("closeness") or {}
    if closeness.get("spearman") is not None:
        yield Note(
            f"Over {closeness['students']} students, accuracy and scaled KL from the teacher have "
            f"Spearman's correlation {closeness['spearman']:+.2f}: at -1 the student closer to the "
            "teacher is the better one, whichever loss made it."
        )
    odd = {run: why for run, why in found.get("temperatures", {}).items() if isinstance(why, str)}
    if odd:
        words = "; ".join(f"{run}: {why}" for run, why in odd.items())
        yield Note(f"Where temperature scaling degenerates: {words}.")


def _gap(source: Source, key: str, value: Json | None, unit: str) -> Cell:
    """KL - CE of a cell, or that nothing regrew there."""
    return _difference(value, unit) if source.places[key].regrew else Cell(NOTHING_REGREW)


def _difference(value: Json | None, unit: str) -> Cell:
    clear = value is not None and None not in (value["low"], value["high"])
    strong = clear and value["low"] * value["high"] > 0  # type: ignore[index]
    return Cell(quantity(value, unit, "+"), strong)


def _ends(summary: Json, share: str) -> Cell:
    gap = f"{summary[f'kl{share}'] - summary[f'ce{share}']:+.1f}"
    low, high = summary.get(f"lo{share}"), summary.get(f"hi{share}")
    if low is None or high is None:
        return Cell(f"{gap} (no interval)")
    return Cell(f"{gap} [{low:+.1f}, {high:+.1f}]", low * high > 0)


def _points(share: float | None) -> str:
    return CANNOT_SAY if share is None else f"{100 * share:.3g}"
