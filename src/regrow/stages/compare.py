"""Compare the two losses: accuracy, uncertainty, paired tests and claims, from predictions."""

from pathlib import Path

from regrow.compare.claims import claims_json
from regrow.compare.curves import all_curves
from regrow.compare.evidence import gather
from regrow.compare.study import read_study
from regrow.compare.tables import comparison_json, measures_json, paired_json, summary_json
from regrow.compare.transfer import transfer_json, transfer_rows
from regrow.support.files import replacing, write_csv, write_json
from regrow.support.params import read_params


def main(predictions: Path, summary: Path, metrics: Path, plots: Path) -> None:
    """Write what is decided by to --summary, all numbers to --metrics, and figures to --plots."""
    params = read_params()
    settings = params.compare
    equal = "steps" if params.training.steps else "epochs"
    study = read_study(predictions, params.sweep)

    # Matplotlib takes a second to load, which whoever lacks predictions need not wait.
    from regrow.plot.figures import figures
    from regrow.plot.style import save

    evidence = gather(study, params.sweep, settings)
    comparison, curves = comparison_json(evidence), all_curves(evidence)
    transfer = transfer_json(study, params.sweep, settings)
    if transfer:
        curves["transfer"] = transfer_rows(transfer, params.sweep)
    with replacing(plots) as folder:
        for name, rows in curves.items():
            write_csv(folder / f"{name}.csv", rows)
        for name, figure in figures(curves, comparison).items():
            save(figure, folder / name)
    with replacing(metrics) as folder:
        write_json(folder / "comparison.json", comparison)
        write_json(folder / "measures.json", measures_json(evidence))
        write_json(folder / "paired.json", paired_json(evidence))
        write_json(folder / "claims.json", claims_json(evidence, equal))
        if transfer:
            write_json(folder / "transfer.json", transfer)
    write_json(summary, summary_json(evidence))
