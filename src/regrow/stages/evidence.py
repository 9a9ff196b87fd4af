"""Judge the two losses: uncertainty, paired tests and the paper's claims, from predictions."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.compare.claims import claims_json
from regrow.compare.curves import all_curves
from regrow.compare.evidence import gather, models_json, paired_json, uncertainty_json
from regrow.compare.study import read_study
from regrow.compare.transfer import transfer_json, transfer_rows
from regrow.support.files import replacing, write_csv, write_json
from regrow.support.params import read_params


def main(
    predictions: Annotated[Path, typer.Option(help="Folder of every model's predictions.")],
    claims: Annotated[Path, typer.Option(help="JSON file to write the verdicts to.")],
    metrics: Annotated[Path, typer.Option(help="Folder to write all measures to.")],
    plots: Annotated[Path, typer.Option(help="Folder to write curves and figures to.")],
) -> None:
    """Write every measure, paired test and verdict for the sweep that params.yaml names."""
    params = read_params()
    settings = params.compare
    study = read_study(predictions, params.sweep)

    # Matplotlib takes a second to load, which whoever lacks predictions need not wait.
    from regrow.plot.evidence import evidence_figures
    from regrow.plot.style import save
    from regrow.plot.transfer import transfer_figure

    evidence = gather(study, params.sweep, settings)
    curves = all_curves(study, params.sweep, evidence)
    figures = evidence_figures(
        curves, settings.confidence, evidence.questions, evidence.seeds, settings.margin
    )
    transfer = transfer_json(study, params.sweep, settings)
    if transfer:
        curves["transfer"] = transfer_rows(transfer)
        figures["transfer"] = transfer_figure(curves["transfer"], settings.confidence)
    with replacing(plots) as folder:
        for name, rows in curves.items():
            write_csv(folder / f"{name}.csv", rows)
        for name, figure in figures.items():
            save(figure, folder / name)
    with replacing(metrics) as folder:
        write_json(folder / "uncertainty.json", uncertainty_json(evidence))
        write_json(folder / "paired.json", paired_json(evidence))
        if transfer:
            write_json(folder / "transfer.json", transfer)
        for name, numbers in models_json(evidence).items():
            write_json(folder / "models" / f"{name}.json", numbers)
    write_json(claims, claims_json(evidence))
