"""Print the comparison as a table, and name the figures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from regrow.support.errors import UserError

LABELS = {"pruned": "pruned only", "finetune": "cross-entropy", "distill": "KL distillation"}


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
        for method, label in LABELS.items():
            first = method == "pruned"
            shown.add_row(
                f"{cell['sparsity']:g}" if first else "",
                f"{100 * cell['retention']:.1f} %" if first else "",
                label,
                interval(cell[method]),
                difference(cell) if method == "distill" else "",
            )
    return shown


def interval(value: dict[str, float | None], sign: str = "") -> str:
    """`41.2 [37.0, 45.5]`: fractions in percent; where no interval can be had it says so."""
    estimate, low, high = (
        "" if number is None else f"{100 * number:{sign}.1f}"
        for number in (value["estimate"], value["low"], value["high"])
    )
    return f"{estimate} [{low}, {high}]" if low and high else f"{estimate} (no interval)"


def difference(cell: dict[str, Any]) -> str:
    """KL - CE, or what there is instead where no student clearly beats the floor."""
    return interval(cell["difference"], "+") if cell["regrew"] else "nothing regrew"


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
            for method, label in LABELS.items()
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


def estimate(claim: dict[str, Any]) -> str:
    """The claim's number in its unit, with its interval: fractions in percentage points."""
    if claim["estimate"] is None:
        return "cannot say"
    if claim["unit"] == "fraction":
        return f"{interval(claim, '+')} points"
    number, low, high = (
        "" if value is None else f"{value:+.2f}"
        for value in (claim["estimate"], claim["low"], claim["high"])
    )
    ends = f"[{low}, {high}]" if low and high else "(no interval)"
    return f"{number} {ends} {claim['unit']}"


def notes(comparison: dict[str, Any]) -> str:
    """What the table's numbers stand on."""
    normalisation = {"raw": "raw", "per_character": "per character"}[comparison["accuracy"]]
    seeds = comparison["seeds"]
    over = (
        "questions (one seed: the noise of training is not in them)"
        if seeds == 1
        else f"questions and {seeds} seeds"
    )
    return (
        f"Accuracy {normalisation} on {comparison['questions']:,} test questions; chance "
        f"{100 * comparison['chance']:.1f} %, longest choice "
        f"{100 * comparison['longest_choice']:.1f} %. "
        f"[{100 * comparison['confidence']:g} % bootstrap intervals] over {over}."
    )
