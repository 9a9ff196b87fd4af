"""Judge the device's files: the frontier over bytes, and verdicts with intervals."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.device.files import EXACT, read_files
from regrow.device.frontier import frontier_json
from regrow.support.files import read_yaml, write_json
from regrow.support.params import read_params


def main(
    params: Annotated[Path, typer.Option(help="the study's params.yaml")],
    edge: Annotated[Path, typer.Option(help="the pipeline's params.yaml, with the formats")],
    runs: Annotated[Path, typer.Option(help="YAML file of the runs on the device")],
    predictions: Annotated[Path, typer.Option(help="the folder of predictions")],
    records: Annotated[Path, typer.Option(help="the folder of the files' records")],
    out: Annotated[Path, typer.Option(help="JSON file to write")],
) -> None:
    """Write accuracy, size and verdicts of every model in every format."""
    study = read_params(params)
    formats = read_yaml(edge, "write the formats there")
    common = [EXACT, *formats["formats"]]
    files, test = read_files(
        predictions,
        records,
        read_yaml(runs, "`make edge` makes it")["runs"],
        {"students": common, "teacher": [*common, *formats["teacher_formats"]]},
        study.sweep,
        study.compare,
    )
    write_json(out, frontier_json(files, test, study.compare))
