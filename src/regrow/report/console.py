"""The page's tables where there is no page: in a terminal, or as Markdown."""

import os
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as Drawn

from regrow.report.parts import Table

WIDTH = 180  # columns, where neither a terminal nor the variable COLUMNS says how many there are


def console() -> Console:
    """What prints as wide as the terminal is."""
    known = os.isatty(1) or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if known else WIDTH)


def print_tables(tables: Sequence[Table], markdown: bool = False) -> None:
    """Print tables under their captions; a row without a heading belongs to the one above it."""
    for table in tables:
        if markdown:
            lines = [table.head, ["---"] * len(table.head), *table.rows]
            rows = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
            print(f"{table.caption}:\n\n{rows}\n")
            continue
        shown = Drawn(title=table.caption, title_justify="left", title_style="bold")
        shown.box, shown.padding, shown.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
        for place, head in enumerate(table.head):
            numbers = all(str(row[place])[:1] in "0123456789" for row in table.rows)
            shown.add_column(head, justify="right" if numbers else "left", overflow="fold")
        apart = table.look == "stack" or not all(row[0] for row in table.rows)
        for row in table.rows:
            if apart and row[0]:
                shown.add_section()
            shown.add_row(*map(str, row))
        console().print(shown)
