"""Compare the two losses: accuracy over retention with intervals, from stored predictions."""

import csv
from pathlib import Path
from typing import Annotated

import typer

from regrow.compare.accuracy import COLUMNS, as_json, compare, curve
from regrow.compare.study import METHODS, read_study
from regrow.plot.accuracy import accuracy_figure
from regrow.plot.style import save
from regrow.support.files import replacing, write_json
from regrow.support.params import read_params


def main(
    predictions: Annotated[Path, typer.Option(help="Folder of every model's predictions.")],
    metrics: Annotated[Path, typer.Option(help="JSON file to write the comparison to.")],
    plots: Annotated[Path, typer.Option(help="Folder to write curves and figures to.")],
) -> None:
    """Write accuracies and paired differences of the sweep that params.yaml names."""
    params = read_params()
    study = read_study(predictions, params.sweep)
    comparison = compare(study, params.sweep, params.compare)
    for method in METHODS:
        write_csv(plots / "accuracy" / f"{method}.csv", curve(comparison, method))
    save(accuracy_figure(comparison), plots / "accuracy")
    write_json(metrics, as_json(comparison))


def write_csv(path: Path, rows: list[list[object]]) -> None:
    """Write rows under `COLUMNS`; a value that cannot be had (None) is an empty field."""
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
