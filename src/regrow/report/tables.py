"""The metrics of a set of results as tables in words, with intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.commands.show import interval
from regrow.plot.style import STYLES
from regrow.report.files import Json, in_form, read_json

CANNOT_SAY = "cannot say"
METHODS = ("teacher", "pruned", "finetune", "distill")
GIVEN = {  # what these say of some models was not measured, but follows from what they are
    "agreement": {"teacher": "100"},
    "kl": {"teacher": "0"},
    "recovery": {"teacher": "100", "pruned": "0"},
}


PLACE = ("Sparsity", "Train questions", "Parameters kept")


@dataclass(frozen=True)
class Cell:
    """One field of a table; `strong` where an interval of a difference does not hold 0."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first field of a row is its heading, and `head` has one for every field.

    words: its fields are words rather than numbers, and stand left.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    words: bool = False


@dataclass(frozen=True)
class Place:
    """Where in the grid a cell lies; `retention` is None where no file says it."""

    sparsity: float
    train_size: int
    retention: float | None

    @classmethod
    def of(cls, cell: Json) -> "Place":
        """From a cell of `metrics/compare/comparison.json`."""
        return cls(cell["sparsity"], cell["train_size"], cell["retention"])

    @property
    def fields(self) -> list[Cell]:
        """The first fields of the cell's row, under `PLACE`."""
        kept = CANNOT_SAY if self.retention is None else f"{100 * self.retention:.1f} %"
        return [Cell(f"{self.sparsity:g}"), Cell(f"{self.train_size:,}"), Cell(kept)]


def label(method: str) -> str:
    """A method's name in words; of one that this module does not know, its key."""
    return STYLES[method].label if method in STYLES else method


def accuracy_table(comparison: Json) -> Table:
    """`metrics/compare/comparison.json`: a row a cell, a column a method, and the difference."""
    cells = list(comparison["sweep"].values())
    return Table(
        "Test accuracy, %",
        [*PLACE, *map(label, METHODS), "KL - CE, points"],
        [
            [
                *Place.of(cell).fields,
                *(field(cell[method], "percent") for method in METHODS),
                field(cell["difference"], "percent", difference=True),
            ]
            for cell in cells
        ],
    )


def measure_tables(measures: Json, places: Mapping[str, Place]) -> dict[str, Table]:
    """`metrics/compare/measures.json`: a table a measure, by the measure's key."""
    return {
        measure: _measure_table(measure, said, measures["sweep"], places)
        for measure, said in measures["measures"].items()
    }


def _measure_table(measure: str, said: Json, sweep: Json, places: Mapping[str, Place]) -> Table:
    percent = said["unit"] == "fraction"
    form = "percent" if percent else "choices" if said["unit"] == "choices" else "number"
    unit = "%" if percent else said["unit"]
    words = said["label"]
    better = f" ({said['better']} is better)" if said["better"] else ""
    given = GIVEN.get(measure, {})

    def fields(cell: Json) -> Iterator[Cell]:
        values = cell.get(measure, {})
        for method in METHODS:
            if method in given:
                yield Cell(f"{given[method]} by definition")
            else:
                yield field(values.get(method), form)
        yield field(values.get("difference"), form, difference=True)

    unit_of_gap = "points" if percent else unit
    return Table(
        f"{words[:1].upper()}{words[1:]}{f', {unit}' if unit else ''}{better}",
        [*PLACE, *map(label, METHODS), f"KL - CE{f', {unit_of_gap}' if unit_of_gap else ''}"],
        [[*_place(key, places).fields, *fields(cell)] for key, cell in sweep.items()],
    )


def paired_table(paired: Json, comparison: Json, places: Mapping[str, Place]) -> Table:
    """`metrics/compare/paired.json`: a row a cell."""
    rows = [
        [
            *_place(key, places).fields,
            field(comparison["sweep"][key]["difference"], "percent", difference=True),
            Cell(count(cell["only_distill_right"])),
            Cell(count(cell["only_finetune_right"])),
            Cell(_p(cell["p"])),
            Cell(_p(cell["holm_p"])),
            Cell(cell["verdict"]),
            Cell(CANNOT_SAY if cell["detectable"] is None else f"{100 * cell['detectable']:.1f}"),
        ]
        for key, cell in paired["sweep"].items()
    ]
    return Table(
        "KL against cross-entropy on the same questions",
        [
            *PLACE,
            "KL - CE, points",
            "Only KL right",
            "Only CE right",
            "p",
            "p, Holm",
            "Verdict",
            "Detectable, points",
        ],
        rows,
        note=(
            "p: exact, two-sided, paired by question; Holm: adjusted for all cells of the grid. "
            f"Verdict at a margin of {100 * comparison['margin']:g} points. Detectable: the "
            "smallest true difference that such a test finds in 4 of 5 repetitions."
        ),
    )


def transfer_tables(transfer: Json) -> list[Table]:
    """`metrics/compare/transfer.json`: a table a measure, a row a set and cell."""
    changes = {"finetune_change": "CE - teacher", "distill_change": "KL - teacher"}
    forms = {"accuracy": ("Accuracy, %", "percent"), "kl": ("KL from the teacher, nats", "number")}
    tables = []
    for measure, (caption, form) in forms.items():
        first = next(iter(next(iter(transfer.values()))["sweep"].values()))[measure]
        methods = [method for method in METHODS if method in first]
        gaps = {key: words for key, words in changes.items() if key in first}
        rows = [
            [
                Cell(f"{name} (n = {of_set['questions']:,})"),
                *map(Cell, key.split("-")[1:]),
                *(field(cell[measure][method], form) for method in methods),
                *(
                    field(cell[measure][gap], form, difference=True)
                    for gap in ("difference", *gaps)
                ),
            ]
            for name, of_set in transfer.items()
            for key, cell in of_set["sweep"].items()
        ]
        head = ["Set", *PLACE[:2], *map(label, methods), "KL - CE", *gaps.values()]
        tables.append(Table(f"Other tasks: {caption}", head, rows))
    return tables


def read_control_tables(folder: Path) -> list[Table]:
    """`controls.json` of a folder of sets: the arms and the contrasts; none where there is none."""
    path = folder / "controls.json"
    if not path.exists():
        return []
    found = read_json(path)
    with in_form(path):
        arms = [
            [
                Cell(name),
                Cell(arm["study"]),
                Cell(f"{100 * arm['retention']:.1f} %"),
                field(arm["accuracy"], "percent"),
                field(arm["nll"], "choices"),
            ]
            for name, arm in found["arms"].items()
        ]
        contrasts = [
            [
                Cell(contrast["question"]),
                Cell(f"{contrast['arm']} - {contrast['other']}"),
                field(contrast["accuracy"], "percent", difference=True),
                field(contrast["nll"], "choices", difference=True),
                Cell(_p(contrast["p"])),
                Cell(_p(contrast["holm_p"])),
                Cell(contrast["verdict"]),
            ]
            for contrast in found["contrasts"]
        ]
        margin = f"{100 * found['margin']:g}"
    return [
        Table("Arms", ["Arm", "Set", "Parameters kept", "Accuracy, %", "NLL, nats"], arms),
        Table(
            "Contrasts, paired by question",
            [
                *("Question", "Difference", "Accuracy, points", "NLL, nats"),
                *("p", "p, Holm", "Verdict"),
            ],
            contrasts,
            note=(
                "p: exact, two-sided; Holm: adjusted for all contrasts. Verdict on accuracy at a "
                f"margin of {margin} points."
            ),
        ),
    ]


def field(value: Any, form: str, difference: bool = False) -> Cell:
    """An estimate with its interval; `cannot say` for null or what is not there.

    value: `{"estimate", "low", "high"}` or None. form: `percent` for fractions, shown in percent,
    `choices` for two decimals, `number` for three.
    """
    if value is None or value["estimate"] is None:
        return Cell(CANNOT_SAY)
    sign = "+" if difference else ""
    low, high = value["low"], value["high"]
    strong = difference and low is not None and high is not None and low * high > 0
    if form == "percent":
        return Cell(interval(value, sign), strong)
    digits = 2 if form == "choices" else 3
    ends = (
        "(no interval)"
        if low is None or high is None
        else f"[{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
    )
    return Cell(f"{value['estimate']:{sign}.{digits}f} {ends}", strong)


def _p(value: float | None) -> str:
    return CANNOT_SAY if value is None else "< 0.0001" if value < 0.0001 else f"{value:.3g}"


def count(value: int | None) -> str:
    return CANNOT_SAY if value is None else f"{value:,}"


def _place(key: str, places: Mapping[str, Place]) -> Place:
    """The cell `S-N`, which the comparison may not hold."""
    if key in places:
        return places[key]
    _, sparsity, train_size = key.split("-")
    return Place(float(sparsity), int(train_size), None)
