"""The results as a table: on the terminal, in Markdown, and in docs/performance.md."""

from pathlib import Path

from rich.table import Table

from benchmarks.page import BEGIN, END, PAGE
from benchmarks.results import Measure, Note, Results, Row
from regrow.support.errors import UserError
from regrow.support.files import replacing

HEADINGS = ("What", "regrow", "Held against", "Figure", "Target", "")


def cells(row: Row) -> tuple[str, ...]:
    """A row's texts, one for each of `HEADINGS`."""
    return (
        row.name,
        "" if row.ours is None else measured(row.ours),
        "" if row.against is None else f"{row.against.what}: {measured(row.against)}",
        _figure(row),
        "" if row.target is None else row.target.text,
        _verdict(row),
    )


def measured(measure: Measure) -> str:
    """Median, smallest and largest value with the unit, and the share of the ceiling."""
    spread = ""
    if len(measure.values) > 1:
        spread = f" [{number(measure.low)}, {number(measure.high)}]"
    share = "" if measure.of_ceiling is None else f" ({measure.of_ceiling:.0%} of the ceiling)"
    return f"{number(measure.median)}{spread} {measure.unit}{share}"


def number(value: float) -> str:
    """Three digits that count, and thousands set apart; integers as they are."""
    if isinstance(value, int) or (abs(value) >= 1000 and value == round(value)):
        return f"{value:,.0f}"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    text = f"{value:#.3g}"
    return text.rstrip(".") if "e" not in text else f"{value:.2g}"


def note(value: Note) -> str:
    """What a note holds."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(part if isinstance(part, str) else number(part) for part in value)
    return number(value)


def as_table(results: Results) -> Table:
    """For the terminal."""
    table = Table(*HEADINGS, title=conditions(results), title_justify="left")
    previous = ""
    for row in results.rows:
        if previous and row.group != previous:
            table.add_section()
        previous = row.group
        colour = {True: "green", False: "red", None: ""}[row.met]
        table.add_row(
            *cells(row)[:-1], f"[{colour}]{cells(row)[-1]}[/]" if colour else cells(row)[-1]
        )
    return table


def as_markdown(results: Results) -> str:
    """For a page: the conditions, the table, and what was found beside each row."""
    lines = [conditions(results), ""]
    lines += [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
    lines += [_line(cells(row)) for row in results.rows]
    lines += ["", "Found beside them:", ""]
    for row in results.rows:
        if row.notes:
            listed = "; ".join(
                f"{name.replace('_', ' ')}: {note(value)}" for name, value in row.notes.items()
            )
            lines.append(f"- {row.name}: {listed}.")
    return "\n".join(lines) + "\n"


def conditions(results: Results) -> str:
    """One line on the machine, the versions and the counts."""
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}, load {machine['load_at_start']} at the start; {versions}; "
        f"up to {results.settings['questions']} questions, {results.settings['repeats']} rounds, "
        f"{results.settings['threads']} threads."
    )


def write_page(path: Path, results: Results) -> None:
    """Put the table between the markers of a page; a page that is not there is made.

    Raises:
        UserError: the page holds no markers.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else PAGE
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{path} holds no lines {BEGIN} and {END}; put them around the table")
    with replacing(path) as beside:
        beside.write_text(
            f"{before}{BEGIN}\n\n{as_markdown(results)}\n{END}{after}", encoding="utf-8"
        )


def _figure(row: Row) -> str:
    if row.figure is None or row.spread is None:
        return ""
    if row.ratio is None:
        return ""
    low, high = row.spread
    if row.percent:
        text, ends = f"{row.figure:.0%}", (f"{low:.0%}", f"{high:.0%}")
    else:
        text, ends = f"{number(row.figure)}x", (number(low), number(high))
    return text if low == high else f"{text} [{ends[0]}, {ends[1]}]"


def _verdict(row: Row) -> str:
    if row.not_measured is not None:
        return f"not measured: {row.not_measured}"
    return {True: "met", False: "missed", None: ""}[row.met]


def _line(texts: "tuple[str, ...] | list[str]") -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
