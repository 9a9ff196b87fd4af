"""Tell causes apart: paired differences between runs of several studies, from their results."""

from pathlib import Path

from regrow.compare.controls import controls_json, read_controls, read_settings
from regrow.report.console import print_tables
from regrow.report.tables import control_tables
from regrow.support.files import write_json


def main(results: Path, controls: Path, out: Path, partial: bool = False) -> None:
    """Write every contrast's paired difference, and print them as Markdown tables.

    Args:
        results: folder of the studies' results.
        controls: YAML file that names arms and contrasts.
        out: JSON file to write.
        partial: take a contrast whose studies are not all in --results for one that is not run.
    """
    asked = read_controls(controls)
    settings = read_settings(results / next(iter(asked.arms.values())).study / "params.yaml")
    found = controls_json(results, asked, settings, partial)
    write_json(out, found)
    print_tables(control_tables(found), markdown=True)
