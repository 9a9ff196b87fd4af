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


def comparison_json(evidence: Evidence) -> dict[str, Any]:
    """`comparison.json`: what all stands on; then by cell each accuracy and distill - finetune."""
    return {
        "questions": evidence.questions,
        "calibration_questions": evidence.calibration,
        "seeds": len(evidence.seeds),
        **evidence.settings.model_dump(include={"accuracy", "confidence", "margin"}),
        "chance": as_json(evidence.chance),
        "longest_choice": as_json(evidence.longest_choice.estimate),
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


DEGENERATE: dict[float | None, str] = {
    0: "none: every calibration question is right, so the lower the better",
    np.inf: "infinite: the scores say nothing of the gold choice, so the scaled model is uniform",
}
"""What `measures.json` says of a temperature that is no temperature."""


def paired_json(evidence: Evidence) -> dict[str, Any]:
    """`paired.json`: for each cell, is KL better than CE, and could the test have told?

    p-values are exact and two-sided. `holm_p` is adjusted for the cells that the study named before
    its run (`named`), and for all cells where it is an exploratory one. `regrew` lists the losses
    whose students clearly beat the longest choice and their pruned model; where none does, nothing
    regrew and the cell is not testable. What cannot be said is null.
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

    Accuracy of the teacher, and of CE and of KL at the retentions of the sweep nearest to
    `RETENTIONS`; at the smallest, where the paper makes its claim, also the interval of KL - CE
    from `lo` to `hi`. A name ends in the retention, in percent. Few and short, because
    `dvc exp show` makes each a column, beside that of the parameter that changed.

    The cells are those of the largest train size, and of the score of the study's primary cell or
    the first of the sweep.
    """
    score = (evidence.settings.primary or [evidence.cells[0].place.score])[0].split("-")[0]
    size = max(cell.place.train_size for cell in evidence.cells)
    cells = [c for c in evidence.cells if (c.place.score, c.place.train_size) == (score, size)]
    numbers = {"teacher": cells[0].methods["teacher"]["accuracy"].estimate}
    for wanted in RETENTIONS:
        nearest = min(cells, key=lambda cell: abs(cell.retention - wanted))
        kept, gap = f"{100 * nearest.retention:.0f}", nearest.lead
        numbers[f"ce{kept}"] = nearest.methods["finetune"]["accuracy"].estimate
        numbers[f"kl{kept}"] = nearest.methods["distill"]["accuracy"].estimate
    if not np.isnan(gap.low):
        numbers |= {f"lo{kept}": gap.low, f"hi{kept}": gap.high}
    return {name: round(100 * value, 1) for name, value in numbers.items()}


def closeness(evidence: Evidence) -> dict[str, Any]:
    """Spearman's correlation, over students, of accuracy and closeness to the teacher.

    Closeness is KL from the teacher after temperature scaling, so that -1 says that the closer
    student is the better one, whichever loss made it. Null where it cannot be had.
    """
    pairs = np.array(
        [
            (model.test.hits.mean(), distance.estimate)
            for name, model in evidence.models.items()
            if start_of(name) and (distance := MEASURES["kl_scaled"](model))
        ]
    )
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    varies = len(pairs) > 2 and (np.ptp(pairs, axis=0) > 0).all()
    spearman = float(spearmanr(pairs).statistic) if varies else np.nan
    return {"students": len(pairs), "spearman": as_json(spearman)}
