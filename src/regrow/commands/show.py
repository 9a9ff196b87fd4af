"""Print the comparison and the claims as tables, and name the figures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from regrow.report import words
from regrow.report.words import LABELS, NOTHING_REGREW, interval, notes
from regrow.support.errors import UserError

HEAD = ("Sparsity", "Retention", "Method", "Accuracy, %", "KL - CE, points")


def main(metrics: Path, plots: Path, markdown: bool = False) -> None:
    """Print every method's accuracy, the difference KL - CE with intervals, and the claims.

    Args:
        metrics: the folder of numbers that `compare` wrote.
        plots: the folder of its figures.
        markdown: print Markdown tables.
    """
    comparison = read(metrics / "comparison.json", "sweep")
    paired = read(metrics / "paired.json", "sweep")["sweep"]
    tables = accuracies(comparison, [name for name, cell in paired.items() if cell["regrew"]])
    claims = read(metrics / "claims.json", "kl_matches_ce")
    judged = [words.claim_fields(claim) for claim in claims.values()]
    if markdown:
        for title, rows in tables.items():
            print(f"{title[0].upper()}{title[1:]}:\n\n{words.markdown(HEAD, rows)}\n")
        print(words.markdown(words.CLAIMS, judged))
        return
    console = Console(highlight=False)
    for title, rows in tables.items():
        console.print(table(title, HEAD, rows))
    console.print(notes(comparison), style="dim")
    console.print(
        table("The paper's claims", words.CLAIMS[:3], [row[:3] for row in judged], wrap=2)
    )
    for path in sorted([*plots.rglob("*.png"), *plots.rglob("*.svg")]):
        console.print(path.as_posix(), soft_wrap=True)


def read(path: Path, key: str) -> dict[str, Any]:
    """Read a JSON file of `compare` that holds `key`; any other is a `UserError` that names it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found[key]:
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is missing or not what `compare` writes; run `dvc repro` to make it")


def accuracies(comparison: dict[str, Any], regrew: Sequence[str]) -> dict[str, list[list[str]]]:
    """By a title for each score and train size, a row under `HEAD` for each method of its cells.

    Where no student clearly beats the floor, the difference says so instead.
    """
    tables: dict[str, list[list[str]]] = {}
    for name, cell in comparison["sweep"].items():
        title = f"pruned by {cell['score']}, {cell['train_size']:,} train questions"
        teacher = ["0", "100.0 %", "teacher", interval(cell["teacher"]), ""]
        gap = interval(cell["difference"], "+") if name in regrew else NOTHING_REGREW
        pruned, finetune, distill = (
            [LABELS[method], interval(cell[method])] for method in ("pruned", "finetune", "distill")
        )
        tables.setdefault(title, [teacher]).extend(
            [
                [f"{cell['sparsity']:g}", f"{100 * cell['retention']:.1f} %", *pruned, ""],
                ["", "", *finetune, ""],
                ["", "", *distill, gap],
            ]
        )
    return tables


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], wrap: int = 0) -> Table:
    """A table whose first `wrap` columns share the width; a new section where a row says where."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    shown.padding, shown.pad_edge = (0, 1, int(wrap > 0), 0), False
    for place, heading in enumerate(head):
        shown.add_column(heading, ratio=1 if place < wrap else None, no_wrap=place >= wrap)
    for row in rows:
        if row[0] and not wrap:
            shown.add_section()
        shown.add_row(*row)
    return shown
