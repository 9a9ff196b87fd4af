"""The evidence as the JSON files that people, figures and the report read."""

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from regrow.compare.bootstrap import as_json
from regrow.compare.evidence import CellEvidence, Evidence
from regrow.compare.measures import BINS, MEASURES
from regrow.compare.significance import detectable, verdict
from regrow.compare.study import LOSSES, METHODS
from regrow.support.files import rounded

RETENTIONS = (0.9, 0.5)  # of the summary, or those of the sweep that are nearest
NOT_TESTABLE = "not testable"


def comparison_json(evidence: Evidence) -> dict[str, Any]:
    """`comparison.json`: what all stands on; then by cell each accuracy and distill - finetune."""
    settings = evidence.settings
    floor = evidence.interval("accuracy", evidence.longest_choice)
    return {
        "questions": evidence.questions,
        "calibration_questions": evidence.calibration,
        "seeds": len(evidence.seeds),
        "accuracy": settings.accuracy,
        "confidence": settings.confidence,
        "margin": settings.margin,
        "chance": rounded(evidence.chance),
        "longest_choice": None if floor is None else rounded(floor.estimate),
        "sweep": {
            str(cell.place): {
                "score": cell.place.score,
                "sparsity": cell.place.sparsity,
                "train_size": cell.place.train_size,
                "retention": rounded(cell.retention),
                "mlp_retention": rounded(cell.mlp_retention),
                **_measured(evidence, cell, "accuracy"),
            }
            for cell in evidence.cells
        },
    }


def measures_json(evidence: Evidence) -> dict[str, Any]:
    """`measures.json`: by cell and measure, each method and distill - finetune.

    Accuracy stands in `comparison.json` alone. A number or an interval's end that the data cannot
    give is null. `temperatures` says what scaling did to each run, and why where it degenerated.
    """
    shown = [name for name in MEASURES if name in evidence.cells[0].methods["distill"]]
    shown.remove("accuracy")
    return {
        "bins": BINS,
        "measures": {
            name: {
                "label": MEASURES[name].label,
                "unit": MEASURES[name].unit,
                "better": MEASURES[name].better,
            }
            for name in shown
        },
        "closeness": closeness(evidence),
        "temperatures": {
            name: _temperature(model.temperature) for name, model in evidence.models.items()
        },
        "sweep": {
            str(cell.place): {name: _measured(evidence, cell, name) for name in shown}
            for cell in evidence.cells
        },
    }


def paired_json(evidence: Evidence) -> dict[str, Any]:
    """`paired.json`: for each cell, is KL better than CE, and could the test have told?

    p-values are exact and two-sided. `holm_p` is adjusted for the cells that the study named before
    its run (`named`), and for all cells where it is an exploratory one. `regrew` lists the losses
    whose students clearly beat the longest choice and their pruned model; where none does, nothing
    regrew and the cell is not testable. What cannot be said is null.
    """
    cells = {}
    for cell in evidence.cells:
        least = detectable(cell.difference("accuracy"), evidence.settings.confidence)
        cells[str(cell.place)] = {
            "named": cell.named,
            "regrew": list(cell.regrew),
            "only_distill_right": cell.paired.only_right,
            "only_finetune_right": cell.paired.only_other,
            "p": None if cell.paired.p is None else rounded(cell.paired.p),
            "holm_p": None if cell.holm_p is None else rounded(cell.holm_p),
            "verdict": cell_verdict(evidence, cell),
            "detectable": None if least is None else rounded(least),
        }
    return {"sweep": cells}


def cell_verdict(evidence: Evidence, cell: CellEvidence) -> str:
    """What the interval says at the margin; a loss is ahead only if it is so among its family."""
    if not cell.regrew:
        return NOT_TESTABLE
    settings = evidence.settings
    interval = evidence.interval("accuracy", cell.difference("accuracy"), paired=True)
    clear = cell.holm_p is not None and cell.holm_p < 1 - settings.confidence
    return verdict(interval, settings.margin, clear)


def summary_json(evidence: Evidence) -> dict[str, float]:
    """`summary.json`: what a person decides by, in percent and points, to one decimal.

    Accuracy of the teacher, and of CE and of KL at the retentions of the sweep nearest to
    `RETENTIONS`; at the smallest, where the paper makes its claim, also the interval of KL - CE
    from `lo` to `hi`. A name ends in the retention, in percent. Few and short, because
    `dvc exp show` makes each a column, beside that of the parameter that changed.

    The cells are those of the largest train size, and of the score of the study's primary cell or
    the first of the sweep.
    """
    score = (evidence.settings.primary or [evidence.cells[0].place.score])[0].split("-")[0]
    size = max(cell.place.train_size for cell in evidence.cells)
    cells = [
        cell
        for cell in evidence.cells
        if (cell.place.score, cell.place.train_size) == (score, size)
    ]
    nearest = [min(cells, key=lambda c: abs(c.retention - wanted)) for wanted in RETENTIONS]
    numbers = {"teacher": cells[0].methods["teacher"]["accuracy"].estimate}
    for cell in nearest:
        kept = f"{100 * cell.retention:.0f}"
        numbers[f"ce{kept}"] = cell.methods["finetune"]["accuracy"].estimate
        numbers[f"kl{kept}"] = cell.methods["distill"]["accuracy"].estimate
    gap = evidence.interval("accuracy", nearest[-1].difference("accuracy"), paired=True)
    if gap is not None and gap.low is not None and gap.high is not None:
        numbers |= {f"lo{kept}": gap.low, f"hi{kept}": gap.high}
    return {name: round(100 * value, 1) for name, value in numbers.items()}


def closeness(evidence: Evidence) -> dict[str, Any]:
    """Spearman's correlation, over students, of accuracy and closeness to the teacher.

    Closeness is KL from the teacher after temperature scaling, so that -1 says that the closer
    student is the better one, whichever loss made it. Null where it cannot be had.
    """
    students = [
        model for name, model in evidence.models.items() if name.partition("/")[0] in LOSSES
    ]
    distances = [MEASURES["kl_scaled"](model) for model in students]
    pairs = np.array(
        [
            (model.test.hits.mean(), distance.estimate)
            for model, distance in zip(students, distances, strict=True)
            if distance is not None and np.isfinite(distance.estimate)
        ]
    )
    varies = len(pairs) > 2 and (np.ptp(pairs, axis=0) > 0).all()
    return {
        "students": len(pairs),
        "spearman": rounded(float(spearmanr(pairs).statistic)) if varies else None,
    }


def _measured(evidence: Evidence, cell: CellEvidence, measure: str) -> dict[str, Any]:
    found = {
        method: as_json(evidence.interval(measure, cell.methods[method][measure]))
        for method in METHODS
        if measure in cell.methods[method]
    }
    difference = evidence.interval(measure, cell.difference(measure), paired=True)
    return {**found, "difference": as_json(difference)}


def _temperature(value: float | None) -> float | str | None:
    if value == 0:
        return "none: every calibration question is right, so the lower the better"
    if value == float("inf"):
        return "infinite: the scores say nothing of the gold choice, so the scaled model is uniform"
    return None if value is None else rounded(value)
