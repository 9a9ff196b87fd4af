"""The evidence as the JSON files that people, figures and the report read."""

from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from regrow.compare.evidence import Evidence
from regrow.compare.measures import BINS, MEASURES
from regrow.compare.significance import detectable
from regrow.compare.study import start_of
from regrow.support.files import as_json

RETENTIONS = (0.9, 0.5)  # of the summary, or those of the sweep that are nearest
DEGENERATE: dict[float | None, str] = {  # what is said of a temperature that is none
    0: "none: every calibration question is right, so the lower the better",
    np.inf: "infinite: the scores say nothing of the gold choice, so the scaled model is uniform",
}


def comparison_json(evidence: Evidence) -> dict[str, Any]:
    """`comparison.json`: what all stands on; then by cell each accuracy and distill - finetune."""
    return {
        "questions": evidence.questions,
        "calibration_questions": evidence.calibration,
        "seeds": len(evidence.seeds),
        **evidence.settings.model_dump(include={"accuracy", "confidence", "margin"}),
        "chance": as_json(evidence.chance),
        "longest_choice": as_json(float(evidence.longest_choice[0])),
        "sweep": {
            str(cell.place): {
                **asdict(cell.place),
                "retention": as_json(cell.retention),
                "mlp_retention": as_json(cell.mlp_retention),
                **as_json(cell.intervals["accuracy"]),
            }
            for cell in evidence.cells
        },
    }


def measures_json(evidence: Evidence) -> dict[str, Any]:
    """`measures.json`: by cell and measure, each method and distill - finetune.

    Accuracy stands in `comparison.json` alone. A number or an interval's end that the data cannot
    give is null. `temperatures` says what scaling did to each run, and why where it degenerated.
    """
    shown = [name for name in evidence.cells[0].intervals if name != "accuracy"]
    return {
        "bins": BINS,
        "measures": {
            name: {part: getattr(MEASURES[name], part) for part in ("label", "unit", "better")}
            for name in shown
        },
        "closeness": closeness(evidence),
        "temperatures": {
            name: DEGENERATE.get(model.temperature, as_json(model.temperature))
            for name, model in evidence.models.items()
        },
        "sweep": {
            str(cell.place): as_json({name: cell.intervals[name] for name in shown})
            for cell in evidence.cells
        },
    }


def paired_json(evidence: Evidence) -> dict[str, Any]:
    """`paired.json`: for each cell, is KL better than CE, and could the test have told?

    The fields are those of `CellEvidence`, and what cannot be said is null. Where no loss is among
    `regrew`, nothing regrew and the cell is not testable.
    """
    confidence = evidence.settings.confidence
    cells = {
        str(cell.place): {
            "named": cell.named,
            "regrew": cell.regrew,
            "only_distill_right": cell.paired.only_right,
            "only_finetune_right": cell.paired.only_other,
            "p": cell.paired.p,
            "holm_p": cell.holm_p,
            "verdict": evidence.verdict(cell),
            "detectable": detectable(cell.difference("accuracy"), confidence),
        }
        for cell in evidence.cells
    }
    return {"sweep": as_json(cells)}


def summary_json(evidence: Evidence) -> dict[str, float]:
    """`summary.json`: what a person decides by, in percent and points, to one decimal.

    Accuracy of the teacher, and of CE and of KL at the retentions nearest to `RETENTIONS`, of the
    largest train size and the score of the study's primary cell or the first of the sweep; at the
    smallest retention also the interval of KL - CE from `lo` to `hi`. A name ends in the retention,
    in percent. Few and short, because `dvc exp show` makes each a column.
    """
    score = (evidence.settings.primary or [evidence.cells[0].place.score])[0].split("-")[0]
    size = max(cell.place.train_size for cell in evidence.cells)
    cells = [c for c in evidence.cells if (c.place.score, c.place.train_size) == (score, size)]
    numbers = {"teacher": cells[0].intervals["accuracy"]["teacher"].estimate}
    for wanted in RETENTIONS:
        nearest = min(cells, key=lambda cell: abs(cell.retention - wanted))
        kept, accuracy = f"{100 * nearest.retention:.0f}", nearest.intervals["accuracy"]
        numbers[f"ce{kept}"] = accuracy["finetune"].estimate
        numbers[f"kl{kept}"] = accuracy["distill"].estimate
    if not np.isnan(nearest.lead.low):
        numbers |= {f"lo{kept}": nearest.lead.low, f"hi{kept}": nearest.lead.high}
    return {name: round(100 * value, 1) for name, value in numbers.items()}


def closeness(evidence: Evidence) -> dict[str, Any]:
    """Spearman's correlation, over students, of accuracy and closeness to the teacher.

    Closeness is KL from the teacher after temperature scaling, so that -1 says that the closer
    student is the better one, whichever loss made it. Null where it cannot be had.
    """
    students = [model for name, model in evidence.models.items() if start_of(name)]
    distances = [(one, MEASURES["kl_scaled"](one)) for one in students]
    pairs = np.array([(one.test.hits.mean(), kl[0]) for one, kl in distances if kl is not None])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    varies = len(pairs) > 2 and (np.ptp(pairs, axis=0) > 0).all()
    spearman = float(spearmanr(pairs).statistic) if varies else np.nan
    return {"students": len(pairs), "spearman": as_json(spearman)}
