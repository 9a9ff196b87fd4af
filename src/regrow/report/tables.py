"""The metrics of a set of results as tables with intervals.

A section's function takes the set and what its file holds, and gives what stands there.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from regrow.report import words
from regrow.report.files import Json, Source, read_json
from regrow.report.parts import Field, Fold, Part, Table
from regrow.report.words import CANNOT_SAY, LABELS, NOTHING_REGREW

if TYPE_CHECKING:  # it loads SciPy, which tables do without
    from regrow.device.choice import Row

PLACE = ("Score", "Sparsity", "Train questions", "Parameters kept")
HEADLINES = ["nll_scaled", "information", "nll", "ece", "lac_size_0.1", "agreement", "recovery"]
GIVEN = {  # what these say of some models was not measured, but follows from what they are
    "agreement": {"teacher": "100"},
    "kl": {"teacher": "0"},
    "kl_scaled": {"teacher": "0"},
    "recovery": {"teacher": "100", "pruned": "0"},
    "information": {"teacher": "100"},
}
NAMED = (
    ("Named before the run", ("primary", "secondary"), "all cells named before the run"),
    ("Looked for after", ("exploratory",), "all cells of the grid"),
)
OTHER_TASKS = {
    "accuracy": ("Accuracy, %", "fraction"),
    "kl": ("KL from the teacher, nats", "nats"),
}
DEVICE = ("Model", "MB", "Accuracy, %", "Prefill/s", "Decode/s", "Peak MB", "On the frontier")
VERDICTS = ("Question", "Measure", "One", "Other", "One - other", "p, Holm", "Verdict")
CONTRASTS = {
    "loss": "KL against CE",
    "lead": "KL's lead, against F32",
    "bytes": "student against teacher at its bytes",
}
NOISE = "One thread of llama.cpp; noisy: repetitions differ by more than 15 % of the median."
UNMEASURED = "Speeds are not measured: run make measure."
GAPS = {
    "difference": "KL - CE",
    "finetune_change": "CE - teacher",
    "distill_change": "KL - teacher",
}


def summary(_: Source, found: Json) -> Iterator[Part]:
    """What a person decides by."""
    rows: list[list[str | Field]] = []
    for share in [key[2:] for key in found if re.fullmatch(r"kl\d+", key)]:
        ce, kl = found[f"ce{share}"], found[f"kl{share}"]
        gap: str | Field = f"{kl - ce:+.1f}"
        if f"lo{share}" in found:
            ends = {"low": found[f"lo{share}"], "high": found[f"hi{share}"]}
            gap = difference({"estimate": kl - ce, **ends}, "points")
        rows.append([f"{share} %", f"{ce:.1f}", f"{kl:.1f}", gap])
    note = (
        f"Test accuracy beside the teacher's {found['teacher']:.1f} %; the interval of the "
        "difference is paired. Those of the others stand below."
    )
    head = ["Parameters kept", "Cross-entropy, %", "KL, %", "KL - CE, points"]
    yield Table("Accuracy in short", head, rows, note)


def claims(_: Source, found: Json) -> Iterator[Part]:
    """The paper's claims with estimate, verdict and reason."""
    counts = sorted(Counter(str(claim["verdict"]) for claim in found.values()).items())
    yield f"{', '.join(f'{count} {verdict}' for verdict, count in reversed(counts))}."
    rows: list[list[str | Field]] = [
        [says, quantity, Field("", verdict=verdict), why]
        for says, quantity, verdict, why in map(words.claim_fields, found.values())
    ]
    yield Table("The paper's claims, judged on these results", words.CLAIMS, rows, look="stack")


def accuracy(source: Source, found: Json) -> Iterator[Part]:
    """A row a cell, a column a method, and the difference."""
    rows = _by_method(source, found["sweep"], "fraction", {})
    note = (
        f"{words.notes(found)} Here and below, a difference in bold has an interval that does not "
        "hold 0; no correction is made for how many there are. The paired tests make it. Nothing "
        "regrew: no student clearly beats the longest choice and the pruned model that it started "
        "from."
    )
    head = [*PLACE, *LABELS.values(), "KL - CE, points"]
    yield Table("Test accuracy, %", head, rows, note)


def tests(source: Source, found: Json) -> Iterator[Part]:
    """What was named before the run, and what was looked for after."""
    comparison = source.read("comparison")
    margin = _points(comparison.get("margin", found.get("margin")))
    head = [
        *(*PLACE, "KL - CE, points", "Only KL right", "Only CE right"),
        *("p", "p, Holm", "Verdict", "Detectable, points"),
    ]
    if {place.named for place in source.places.values()} <= {"exploratory"}:
        yield "No contrast was named before the run: all of these were looked for after."
    for caption, kinds, family in NAMED:
        rows = [
            [
                *source.places[key].fields,
                _gap(source, key, comparison["sweep"][key]["difference"], "fraction"),
                count(cell["only_distill_right"]),
                count(cell["only_finetune_right"]),
                words.p_value(cell["p"]),
                words.p_value(cell["holm_p"]),
                Field("", verdict=cell["verdict"]),
                _points(cell["detectable"]),
            ]
            for key, cell in found["sweep"].items()
            if source.places[key].named in kinds
        ]
        note = (
            f"p: exact, two-sided, paired by question; Holm: adjusted for {family}. Verdict at a "
            f"margin of {margin} points. Detectable: the smallest true difference that such a "
            "test finds in 4 of 5 repetitions."
        )
        if rows:
            yield Table(caption, head, rows, note)


def uncertainty(source: Source, found: Json) -> Iterator[Part]:
    """A table a measure; the main ones first, the others folded away."""
    # Earlier results name no label and no unit.
    said = found.get("measures") or {name: {} for name in next(iter(found["sweep"].values()))}
    tables = {name: _measure(source, name, one, found["sweep"]) for name, one in said.items()}
    yield from (tables[name] for name in HEADLINES if name in tables)
    closeness = found.get("closeness") or {}
    if closeness.get("spearman") is not None:
        yield (
            f"Over {closeness['students']} students, accuracy and scaled KL from the teacher have "
            f"Spearman's correlation {closeness['spearman']:+.2f}: at -1 the student closer to the "
            "teacher is the better one, whichever loss made it."
        )
    odd = {run: why for run, why in found.get("temperatures", {}).items() if isinstance(why, str)}
    if odd:
        listed = "; ".join(f"{run}: {why}" for run, why in odd.items())
        yield f"Where temperature scaling degenerates: {listed}."
    if rest := [table for name, table in tables.items() if name not in HEADLINES]:
        yield Fold(f"All other measures ({len(rest)} tables)", rest)


def _measure(source: Source, name: str, said: Json, sweep: Json) -> Table:
    label, unit = said.get("label", name.replace("_", " ")), said.get("unit", "")
    shown, gap = ("%", "points") if unit == "fraction" else (unit, unit)
    better = f" ({said['better']} is better)" if said.get("better") else ""
    given = {method: f"{text} by definition" for method, text in GIVEN.get(name, {}).items()}
    cells = {key: cell.get(name, {}) for key, cell in sweep.items()}
    rows = _by_method(source, cells, unit, given)
    caption = f"{label[:1].upper()}{label[1:]}{f', {shown}' if shown else ''}{better}"
    return Table(caption, [*PLACE, *LABELS.values(), f"KL - CE{f', {gap}' if gap else ''}"], rows)


def _by_method(
    source: Source, cells: Json, unit: str, given: Mapping[str, str]
) -> list[list[str | Field]]:
    """Rows of a cell, each method and the difference; `given` is what follows without numbers."""
    return [
        [
            *source.places[key].fields,
            *(given.get(one) or words.quantity(values.get(one), unit) for one in LABELS),
            _gap(source, key, values.get("difference"), unit),
        ]
        for key, values in cells.items()
    ]


def elsewhere(source: Source, found: Json) -> Iterator[Part]:
    """Other tasks: a table a measure, a row a set and cell."""
    for measure, (caption, unit) in OTHER_TASKS.items():
        first = next(iter(next(iter(found.values()))["sweep"].values()))[measure]
        methods, gaps = ([one for one in names if one in first] for names in (LABELS, GAPS))
        rows: list[list[str | Field]] = [
            [
                f"{name} (n = {of_set['questions']:,})",
                *source.places[key].fields[:3],
                *(words.quantity(cell[measure][method], unit) for method in methods),
                *(difference(cell[measure][gap], unit) for gap in gaps),
            ]
            for name, of_set in found.items()
            for key, cell in of_set["sweep"].items()
        ]
        head = ["Set", *PLACE[:3], *(LABELS[one] for one in methods), *(GAPS[one] for one in gaps)]
        yield Table(f"Other tasks: {caption}", head, rows)


def file_fields(row: "Row") -> list[str]:
    """A file on the device under `DEVICE`; what is not measured is a dash."""
    speeds = []
    for name in ("prefill_per_s", "decode_per_s", "peak_mb"):
        spread = row.speed.get(name)
        speeds.append(f"{spread['median']:g}{' (noisy)' * spread['noisy']}" if spread else "-")
    on = ", ".join(["bytes"] * row.on_bytes + ["decode"] * row.on_decode)
    return [row.name, f"{row.megabytes:.1f}", words.interval(row.accuracy), *speeds, on]


def verdict_fields(one: Json) -> list[str]:
    """A verdict on the device's files under `VERDICTS`."""
    unit = "fraction" if one["measure"] in ("accuracy", "agreement") else "nats"
    return [
        *(CONTRASTS.get(one["kind"], one["kind"]), one["measure"], one["one"], one["other"]),
        *(words.quantity(one["difference"], unit, "+"), words.p_value(one["holm_p"])),
        one["verdict"],
    ]


def on_the_device(source: Source, found: Json) -> Iterator[Part]:
    """What `judge` wrote below edge/, with the speeds of each machine that measured."""
    # SciPy and matplotlib are loaded, which other tables do without.
    from regrow.device.choice import read_rows
    from regrow.report.images import figure

    machines = sorted((source.folder / "results" / "edge").glob("*.json"))
    for measured in [read_json(machine) for machine in machines] or [{}]:
        on = f" on {measured['machine']['processor']}" if measured else ""
        rows = [file_fields(row) for row in read_rows(found, measured, 1)]
        note = NOISE if measured else UNMEASURED
        yield Table(f"Models on the device{on}, best first", DEVICE, rows, note)
    verdicts = [verdict_fields(one) for one in found["verdicts"]]
    yield Table("Verdicts, Holm over all of them", VERDICTS, verdicts, look="words")
    drawn = source.folder / "edge" / "plots" / "frontier.svg"
    if drawn.exists():
        yield figure(drawn, source)
    if found["without_teacher"]:
        names = ", ".join(found["without_teacher"])
        yield f"No format of the teacher is of the bytes of {names}."
    yield f"{found['questions']:,} test questions; docs/edge.md says how it was done."


def control_tables(found: Json) -> list[Table]:
    """Of `controls.json`, which compares runs of several sets: the arms and the contrasts."""
    arms = [
        [
            *(name, arm["study"], f"{100 * arm['retention']:.1f} %"),
            *(words.interval(arm["accuracy"]), words.quantity(arm["nll"], "choices")),
        ]
        for name, arm in found["arms"].items()
    ]
    contrasts = [
        [
            *(one["question"], _pairs(one)),
            *(difference(one["accuracy"], "fraction"), difference(one["nll"], "choices")),
            *(words.p_value(one["p"]), words.p_value(one["holm_p"])),
            Field("", verdict=one["verdict"]),
        ]
        for one in found["contrasts"]
    ]
    note = (
        "p: exact, two-sided; Holm: adjusted for all contrasts. Verdict on accuracy at a "
        f"margin of {_points(found['margin'])} points."
    )
    head = ["Question", "Difference", "Accuracy, points", "NLL, nats", "p", "p, Holm", "Verdict"]
    return [
        Table("Arms", ["Arm", "Set", "Parameters kept", "Accuracy, %", "NLL, nats"], arms),
        Table("Contrasts, paired by question", head, contrasts, note),
    ]


def _pairs(one: Json) -> str:
    pair = f"{one['arm']} - {one['other']}"
    return f"({pair}) - ({_pairs(one['less'])})" if one.get("less") else pair


def difference(value: Json | None, unit: str) -> Field:
    """A difference with its interval; strong where that does not hold 0."""
    low, high = (value["low"], value["high"]) if value else (None, None)
    clear = low is not None and high is not None and low * high > 0
    return Field(words.quantity(value, unit, "+"), clear)


def count(value: int | None) -> str:
    """A number of things."""
    return CANNOT_SAY if value is None else f"{value:,}"


def _gap(source: Source, key: str, value: Json | None, unit: str) -> str | Field:
    """KL - CE of a cell, or that nothing regrew there."""
    return difference(value, unit) if source.places[key].regrew else NOTHING_REGREW


def _points(share: float | None) -> str:
    return CANNOT_SAY if share is None else f"{100 * share:.3g}"
