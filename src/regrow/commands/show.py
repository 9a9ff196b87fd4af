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
    metrics: Annotated[Path, typer.Option(help="The comparison that `compare` wrote.")],
    plots: Annotated[Path, typer.Option(help="The folder of its figures.")],
    claims: Annotated[
        Path | None, typer.Option(help="The verdicts that `evidence` wrote, to print them too.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
) -> None:
    """Print every method's accuracy and the difference KL - CE, with intervals."""
    comparison = read_comparison(metrics)
    judged = read_claims(claims) if claims else {}
    if markdown:
        print(as_markdown(comparison))
        if judged:
            print(f"\n{claims_as_markdown(judged)}")
        return
    console = Console(highlight=False)
    for shown in tables(comparison):
        console.print(shown)
    console.print(notes(comparison), style="dim")
    if judged:
        console.print(claims_table(judged))
    for path in sorted([*plots.rglob("*.png"), *plots.rglob("*.svg")]):
        console.print(path.as_posix(), soft_wrap=True)


def read_comparison(path: Path) -> dict[str, Any]:
    """Read the JSON file of `compare`; any other is a `UserError` that names it."""
    try:
        comparison = json.loads(path.read_text(encoding="utf-8"))
        if comparison["sweep"]:
            return dict(comparison)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} holds no comparison; run `dvc repro` to make it")


def read_claims(path: Path) -> dict[str, Any]:
    """Read the JSON file of `evidence`; any other is a `UserError` that names it."""
    try:
        judged = json.loads(path.read_text(encoding="utf-8"))
        if all("verdict" in claim for claim in judged.values()):
            return dict(judged)
    except (OSError, ValueError, AttributeError, TypeError):
        pass
    raise UserError(f"{path} holds no claims; run `dvc repro` to make it")


def tables(comparison: dict[str, Any]) -> Iterator[Table]:
    """One table a train size: one row a method, grouped by sparsity; accuracies in percent."""
    by_size: dict[int, list[dict[str, Any]]] = {}
    for cell in comparison["sweep"].values():
        by_size.setdefault(cell["train_size"], []).append(cell)
    for train_size, cells in by_size.items():
        yield table(f"{train_size:,} train questions", cells)


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
                interval(cell["difference"], "+") if method == "distill" else "",
            )
    return shown


def interval(value: dict[str, float | None], sign: str = "") -> str:
    """`41.2 [37.0, 45.5]`: fractions in percent; where no interval can be had it says so."""
    estimate, low, high = (
        "" if number is None else f"{100 * number:{sign}.1f}"
        for number in (value["estimate"], value["low"], value["high"])
    )
    return f"{estimate} [{low}, {high}]" if low and high else f"{estimate} (no interval)"


def as_markdown(comparison: dict[str, Any]) -> str:
    """The comparison as one Markdown table, a row a method."""
    cells = list(comparison["sweep"].values())
    rows = [("", "0", "100.0 %", "teacher", interval(cells[0]["teacher"]), "")]
    for cell in cells:
        rows += [
            (
                f"{cell['train_size']:,}",
                f"{cell['sparsity']:g}",
                f"{100 * cell['retention']:.1f} %",
                label,
                interval(cell[method]),
                interval(cell["difference"], "+") if method == "distill" else "",
            )
            for method, label in LABELS.items()
        ]
    return "\n".join(
        [
            "| Train size | Sparsity | Retention | Method | Accuracy, % | KL - CE, points |",
            "|---:|---:|---:|---|---|---|",
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
