"""Write results as one self-contained HTML page, to be read without a network."""

import sys
from pathlib import Path

from regrow.report.page import read_control_tables, read_results, render
from regrow.support.errors import UserError
from regrow.support.files import write_text


def main(results: Path, out: Path) -> None:
    """Write the question, set-up, verdicts, tables, figures, parameters and hashes.

    Args:
        results: a set of results (the root is one), or a folder of such sets.
        out: HTML file to write.
    """
    # What is replaced is removed first, which must never be a folder of something else.
    if out.is_dir():
        raise UserError(f"{out} is a folder; give --out a file, such as report.html")
    found = read_results(results)
    page = render(found, read_control_tables(results))
    write_text(out, page)
    for one in found:
        for warning in one.warnings:
            print(f"regrow report: {f'{one.name}: ' * bool(one.name)}{warning}", file=sys.stderr)
    print(out.as_posix())
