"""Compare the two losses: accuracy over retention with intervals, from stored predictions."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.compare.accuracy import COLUMNS, as_json, compare, curve
from regrow.compare.study import METHODS, read_study
from regrow.plot.accuracy import accuracy_figure
from regrow.plot.style import save
from regrow.support.files import write_csv, write_json
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
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in curve(comparison, method)]
        write_csv(plots / "accuracy" / f"{method}.csv", rows)
    save(accuracy_figure(comparison), plots / "accuracy")
    write_json(metrics, as_json(comparison))
