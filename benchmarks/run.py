"""`python -m benchmarks.run`: measure everything in one go and print the table."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import (
    breakdown,
    ceilings,
    evaluate,
    growth,
    memory,
    precision,
    pruned,
    record,
    startup,
    tokens,
    training,
)
from benchmarks.common import FEW, Bench, reproduced
from benchmarks.contest import NotMeasuredError
from benchmarks.machine import machine, versions
from benchmarks.results import Results, Row, read_results, write_results
from benchmarks.table import as_markdown, as_table, write_page
from regrow.support.errors import UserError

GROUPS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "ceilings": ceilings.rows,
    "evaluate": evaluate.rows,
    "training": training.rows,
    "breakdown": breakdown.rows,
    "record": record.rows,
    "pruned": pruned.rows,
    "startup": startup.rows,
    "growth": growth.rows,
    "tokens": tokens.rows,
    "precision": precision.rows,
    "memory": memory.rows,
}
BUSY = 0.5  # a load at the start that other work must have caused


def main(
    only: Annotated[list[str] | None, typer.Option(help="A part to run; may be repeated.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 5,
    questions: Annotated[int, typer.Option(min=2, help="How many questions at most.")] = 200,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path(
        "benchmarks/results.json"
    ),
    docs: Annotated[Path | None, typer.Option(help="A page to put the table into.")] = None,
    markdown: Annotated[bool, typer.Option(help="Print Markdown.")] = False,
    render: Annotated[bool, typer.Option(help="Measure nothing: show what --out holds.")] = False,
) -> None:
    """Measure the study that lies in this folder; parts: ceilings, evaluate, training,
    breakdown, record, pruned, startup, growth, tokens, precision, memory."""
    for name in only or []:
        if name not in GROUPS:
            raise UserError(f"there is no part {name!r}; choose of {', '.join(GROUPS)}")
    if render:
        results = read_results(out)
    else:
        results = measure(Path.cwd(), only or list(GROUPS), repeats, questions, out)
    if docs is not None:
        write_page(docs, results)
    if markdown:
        print(as_markdown(results))
    else:
        Console().print(as_table(results))


def measure(root: Path, only: list[str], repeats: int, questions: int, out: Path) -> Results:
    """Run the parts; the file is written after each, and keeps the parts that are not run."""
    params = reproduced(root)
    results = Results(
        machine=machine(),
        versions=versions(),
        settings={
            "questions": questions,
            "repeats": repeats,
            "threads": params.compute.threads,
            "device": params.compute.device,
            "dtype": params.compute.dtype,
        },
        rows=[],
    )
    kept = _others(out, results, only)
    if float(results.machine["load_at_start"]) > BUSY:
        _say("This machine is busy with other work: the numbers will be off.")
    if questions < FEW:
        _say("So few questions show that everything runs; the numbers say nothing.")
    found: dict[str, list[Row]] = {row.group: [] for row in kept}
    for row in kept:
        found[row.group].append(row)
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in GROUPS.items():
            if name in only:
                scratch = Path(folder) / name
                scratch.mkdir()
                bench = Bench(root, params, questions, repeats, scratch)
                _say(f"{name} …")
                found[name] = [_clean(row, bench) for row in _safely(name, rows(bench))]
            ordered = [row for group in GROUPS for row in found.get(group, [])]
            results = results.model_copy(update={"rows": ordered})
            write_results(out, results)
    return results


def _safely(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows up to what stops a part, which becomes the last."""
    try:
        yield from rows
    except NotMeasuredError as fault:
        yield Row(group=name, name=name, not_measured=str(fault))


def _clean(row: Row, bench: Bench) -> Row:
    """Without this machine's paths in what a program said."""
    if row.not_measured is None:
        return row
    said = row.not_measured
    for path, short in ((bench.scratch, "scratch"), (bench.root, "."), (Path.home(), "~")):
        said = said.replace(str(path), short)
    return row.model_copy(update={"not_measured": said})


def _others(out: Path, results: Results, only: list[str]) -> list[Row]:
    """What `out` holds of the parts that are not run now.

    Raises:
        UserError: that is of another machine, or of other versions or settings.
    """
    if set(only) == set(GROUPS) or not out.is_file():
        return []
    earlier = read_results(out)
    same = all(
        earlier.machine.get(key) == value
        for key, value in results.machine.items()
        if key != "load_at_start"
    )
    if not same or (earlier.versions, earlier.settings) != (results.versions, results.settings):
        raise UserError(
            f"{out} holds results of another machine, or with other versions or settings; give "
            "another --out, or run all parts"
        )
    return [row for row in earlier.rows if row.group not in only]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app(prog_name="python -m benchmarks.run")
    except UserError as error:
        sys.exit(f"benchmarks: {error}")
