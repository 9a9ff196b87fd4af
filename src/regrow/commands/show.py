"""Print the comparison and the claims as tables, and name the figures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regrow.report import words
from regrow.report.console import console, print_tables
from regrow.report.files import in_form, read_json
from regrow.report.parts import Table

HEAD = ("Sparsity", "Retention", "Method", "Accuracy, %", "KL - CE, points")


def main(metrics: Path, plots: Path, markdown: bool = False) -> None:
    """Print every method's accuracy, the difference KL - CE with intervals, and the claims.

    Args:
        metrics: the folder of numbers that `compare` wrote.
        plots: the folder of its figures.
        markdown: print Markdown tables.
    """
    comparison, paired, judged = (
        read_json(metrics / f"{name}.json") for name in ("comparison", "paired", "claims")
    )
    with in_form(metrics):
        tables = list(accuracies(comparison, paired["sweep"]))
        notes = words.notes(comparison)
        shown = 4 if markdown else 3  # a terminal is too narrow for the reasons
        claims = [words.claim_fields(claim)[:shown] for claim in judged.values()]
    print_tables(tables, markdown)
    if not markdown:
        console().print(notes, end="\n\n")
    print_tables(
        [Table("The paper's claims", words.CLAIMS[:shown], claims, look="stack")], markdown
    )
    for path in [] if markdown else sorted([*plots.rglob("*.png"), *plots.rglob("*.svg")]):
        print(path.as_posix())


def accuracies(comparison: Mapping[str, Any], paired: Mapping[str, Any]) -> Iterator[Table]:
    """A table for each score and train size, with a row for each method of its cells.

    Where no student clearly beats the floor, the difference says so instead.
    """
    tables: dict[str, list[list[str]]] = {}
    for name, cell in comparison["sweep"].items():
        caption = f"Pruned by {cell['score']}, {cell['train_size']:,} train questions"
        teacher = ["0", "100.0 %", "teacher", words.interval(cell["teacher"]), ""]
        place = [f"{cell['sparsity']:g}", f"{100 * cell['retention']:.1f} %"]
        regrew = paired[name]["regrew"]
        gap = words.interval(cell["difference"], "+") if regrew else words.NOTHING_REGREW
        rows = tables.setdefault(caption, [teacher])
        for method, at, last in (
            ("pruned", place, ""),
            ("finetune", ["", ""], ""),
            ("distill", ["", ""], gap),
        ):
            rows.append([*at, words.LABELS[method], words.interval(cell[method]), last])
    for caption, rows in tables.items():
        yield Table(caption, HEAD, rows, look="words")
