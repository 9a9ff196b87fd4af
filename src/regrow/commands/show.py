"""Print the comparison as a table, and name the figures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from regrow.report.words import LABELS, NOTHING_REGREW, estimate, interval, notes
from regrow.support.errors import UserError

STUDENTS = {method: label for method, label in LABELS.items() if method != "teacher"}


def main(
    metrics: Annotated[Path, typer.Option(help="The folder of numbers that `compare` wrote.")],
    plots: Annotated[Path, typer.Option(help="The folder of its figures.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
) -> None:
    """Print every method's accuracy, the difference KL - CE with intervals, and the claims."""
    comparison = read(metrics / "comparison.json", "sweep")
    paired = read(metrics / "paired.json", "sweep")
    judged = read(metrics / "claims.json", "kl_matches_ce")
    for name, cell in comparison["sweep"].items():
        cell["regrew"] = paired["sweep"][name]["regrew"]
    if markdown:
        print(as_markdown(comparison), claims_as_markdown(judged), sep="\n\n")
        return
    console = Console(highlight=False)
    for shown in tables(comparison):
        console.print(shown)
    console.print(notes(comparison), style="dim")
    console.print(claims_table(judged))
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


def tables(comparison: dict[str, Any]) -> Iterator[Table]:
    """A table a score and train size: a row a method, grouped by sparsity; accuracy in percent."""
    cells_of: dict[str, list[dict[str, Any]]] = {}
    for cell in comparison["sweep"].values():
        title = f"pruned by {cell['score']}, {cell['train_size']:,} train questions"
        cells_of.setdefault(title, []).append(cell)
    for title, cells in cells_of.items():
        yield table(title, cells)


def table(title: str, cells: list[dict[str, Any]]) -> Table:
    """The teacher, then the methods of each cell."""
    shown = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in ("Sparsity", "Retention"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for heading in ("Method", "Accuracy, %", "KL - CE, points"):
        shown.add_column(heading, no_wrap=True)
    shown.add_row("0", "100.0 %", "teacher", interval(cells[0]["teacher"]), "")
    for cell in cells:
        shown.add_section()
        for method, label in STUDENTS.items():
            first = method == "pruned"
            shown.add_row(
                f"{cell['sparsity']:g}" if first else "",
                f"{100 * cell['retention']:.1f} %" if first else "",
                label,
                interval(cell[method]),
                difference(cell) if method == "distill" else "",
            )
    return shown


def difference(cell: dict[str, Any]) -> str:
    """KL - CE, or what there is instead where no student clearly beats the floor."""
    return interval(cell["difference"], "+") if cell["regrew"] else NOTHING_REGREW


def as_markdown(comparison: dict[str, Any]) -> str:
    """The comparison as one Markdown table, a row a method."""
    cells = list(comparison["sweep"].values())
    rows = [("", "", "0", "100.0 %", "teacher", interval(cells[0]["teacher"]), "")]
    for cell in cells:
        rows += [
            (
                cell["score"],
                f"{cell['train_size']:,}",
                f"{cell['sparsity']:g}",
                f"{100 * cell['retention']:.1f} %",
                label,
                interval(cell[method]),
                difference(cell) if method == "distill" else "",
            )
            for method, label in STUDENTS.items()
        ]
    return "\n".join(
        [
            "| Score | Train size | Sparsity | Retention | Method | Accuracy, % | KL - CE |",
            "|---|---:|---:|---:|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
    )


def claims_table(judged: dict[str, Any]) -> Table:
    """One row a claim: what the paper says, what was estimated, and what follows."""
    shown = Table(
        title="The paper's claims",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 1, 0),
        pad_edge=False,
    )
    shown.add_column("Claim", ratio=1)
    shown.add_column("Estimate here", ratio=1)
    shown.add_column("Verdict", no_wrap=True)
    for claim in judged.values():
        shown.add_row(claim["claim"], f"{claim['quantity']}: {estimate(claim)}", claim["verdict"])
    return shown


def claims_as_markdown(judged: dict[str, Any]) -> str:
    """The claims as one Markdown table, with the reasons."""
    return "\n".join(
        [
            "| The paper's claim | Estimate here | Verdict | Why, and what it would take |",
            "|---|---|---|---|",
            *(
                f"| {claim['claim']} | {claim['quantity']}: {estimate(claim)} "
                f"| **{claim['verdict']}** | {claim['why']} |"
                for claim in judged.values()
            ),
        ]
    )
