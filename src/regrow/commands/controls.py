"""Tell causes apart: paired differences between runs of several studies, from their results."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.compare.controls import controls_json, read_answers, read_controls, read_settings
from regrow.report.tables import control_tables
from regrow.report.words import markdown
from regrow.support.files import write_json


def main(
    results: Annotated[Path, typer.Option(help="Folder of the studies' results.")],
    controls: Annotated[Path, typer.Option(help="YAML file that names arms and contrasts.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
) -> None:
    """Write every contrast's paired difference, and print them as Markdown tables."""
    asked = read_controls(controls)
    settings = read_settings(results / next(iter(asked.arms.values())).study / "params.yaml")
    found = controls_json(results, asked, read_answers(results, asked, settings), settings)
    write_json(out, found)
    for table in control_tables(found):
        print(markdown(table.head, table.rows), end="\n\n")
