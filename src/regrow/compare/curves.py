"""The points of every curve beyond accuracy over retention, for CSV files and figures alike."""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.stats import norm

from regrow.compare.bootstrap import Array, Resamples, Sample, interval_of, over_seeds, resample
from regrow.compare.evidence import ALPHAS, BINS, Evidence, as_json
from regrow.compare.study import METHODS, Study, student_run
from regrow.compare.uncertainty import (
    SCORES,
    confidence,
    likeliest_right,
    reliability,
    risk_by_coverage,
)
from regrow.evaluate.predictions import Predictions
from regrow.support.files import rounded
from regrow.support.schema import Sweep

Row = dict[str, str | int | float | None]
"""A CSV line by column; None is an empty field."""


COVERAGES = tuple(step / 20 for step in range(1, 21))
BAND_DRAWS = 1000  # of the risk-coverage curves: a band needs fewer draws than a number in a table


def measure_curves(evidence: Evidence, method: str) -> list[Row]:
    """What changes with retention and train size: accuracy, NLL, ECE and LAC's set size.

    The measures of the train-size curves, each with its interval.
    """
    return [
        {
            "sparsity": cell.sparsity,
            "train_size": cell.train_size,
            "retention": rounded(cell.retention),
            **_measured(
                evidence,
                {
                    "accuracy": cell.methods[method][evidence.primary],
                    "nll": cell.methods[method]["nll"],
                    "ece": cell.methods[method]["ece"],
                    "set_size": cell.methods[method]["lac_size_0.1"],
                },
                {"accuracy": evidence.primary, "set_size": "lac_size_0.1"},
            ),
            "questions": evidence.questions,
            "seeds": _seeds(evidence, method),
        }
        for cell in evidence.cells
    ]


def conformal_curves(evidence: Evidence, method: str) -> list[Row]:
    """Coverage and mean size of LAC and APS sets, at each alpha."""
    return [
        {
            "sparsity": cell.sparsity,
            "train_size": cell.train_size,
            "retention": rounded(cell.retention),
            "score": score,
            "alpha": alpha,
            **_measured(
                evidence,
                {
                    part: cell.methods[method][f"{score}_{part}_{alpha}"]
                    for part in ("coverage", "size")
                },
                {part: f"{score}_{part}_{alpha}" for part in ("coverage", "size")},
            ),
            "questions": evidence.questions,
            "seeds": _seeds(evidence, method),
        }
        for cell in evidence.cells
        for score in SCORES
        for alpha in ALPHAS
    ]


def difference_rows(evidence: Evidence) -> list[Row]:
    """Accuracy of KL minus CE, cell by cell: the rows of a forest plot."""
    rows = []
    for cell in evidence.cells:
        interval = evidence.interval(
            evidence.primary, cell.difference(evidence.primary), paired=True
        )
        ends = as_json(interval) or dict.fromkeys(("estimate", "low", "high"))
        rows.append(
            {
                "sparsity": cell.sparsity,
                "train_size": cell.train_size,
                "retention": rounded(cell.retention),
                "difference": ends["estimate"],
                "difference_low": ends["low"],
                "difference_high": ends["high"],
                "questions": evidence.questions,
                "seeds": evidence.seeds,
            }
        )
    return rows


def reliability_rows(study: Study, sweep: Sweep, evidence: Evidence, method: str) -> list[Row]:
    """Mean confidence and accuracy of `BINS` bins of equal mass, with Wilson intervals.

    Several seeds are averaged bin by bin; the interval is that of one seed's number of questions.
    """
    rows: list[Row] = []
    for cell in evidence.cells:
        points = [
            reliability(confidence(run), likeliest_right(run), BINS)
            for run in _runs(study, sweep, method, cell.sparsity, cell.train_size)
        ]
        level, hit, mass = (np.mean(parts, axis=0) for parts in zip(*points, strict=True))
        low, high = wilson(hit, mass, evidence.settings.confidence)
        rows += [
            {
                "sparsity": cell.sparsity,
                "train_size": cell.train_size,
                "confidence": rounded(level[index]),
                "accuracy": rounded(hit[index]),
                "accuracy_low": rounded(low[index]),
                "accuracy_high": rounded(high[index]),
                "questions": rounded(mass[index]),
                "seeds": _seeds(evidence, method),
            }
            for index in range(len(mass))
        ]
    return rows


def risk_rows(study: Study, sweep: Sweep, evidence: Evidence, method: str) -> list[Row]:
    """Risk at each of `COVERAGES`, with intervals from `BAND_DRAWS` draws at most."""
    settings = evidence.settings
    draws = resample(
        evidence.questions,
        len(sweep.seed),
        min(BAND_DRAWS, settings.resamples),
        settings.seed,
    )
    rows: list[Row] = []
    for cell in evidence.cells:
        curves = [
            _risks(run, draws)
            for run in _runs(study, sweep, method, cell.sparsity, cell.train_size)
        ]
        for index, coverage in enumerate(COVERAGES):
            sample = over_seeds(
                [Sample(float(once[index]), drawn[:, index]) for once, drawn in curves], draws
            )
            ends = as_json(interval_of(sample, settings.confidence)) or {}
            rows.append(
                {
                    "sparsity": cell.sparsity,
                    "train_size": cell.train_size,
                    "coverage": coverage,
                    "risk": ends.get("estimate"),
                    "risk_low": ends.get("low"),
                    "risk_high": ends.get("high"),
                    "questions": evidence.questions,
                    "seeds": _seeds(evidence, method),
                }
            )
    return rows


def wilson(share: Array, size: Array, level: float) -> tuple[Array, Array]:
    """The score interval of a share of `size` things (Wilson 1927, JASA 22): two like `share`.

    `size` need not be whole: a bin may hold part of a question.
    """
    z = float(norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return np.maximum(0, np.minimum(middle - half, share)), np.minimum(
        1, np.maximum(middle + half, share)
    )


def all_curves(study: Study, sweep: Sweep, evidence: Evidence) -> dict[str, list[Row]]:
    """Every CSV file by its path without the suffix, such as `reliability/distill`."""
    curves: dict[str, list[Row]] = {}
    for method in METHODS:
        curves[f"measures/{method}"] = measure_curves(evidence, method)
        curves[f"conformal/{method}"] = conformal_curves(evidence, method)
        curves[f"reliability/{method}"] = reliability_rows(study, sweep, evidence, method)
        curves[f"risk/{method}"] = risk_rows(study, sweep, evidence, method)
    curves["difference"] = difference_rows(evidence)
    return curves


def _measured(evidence: Evidence, samples: dict[str, Sample], measures: dict[str, str]) -> Row:
    """Columns `NAME`, `NAME_low` and `NAME_high`; `measures` names those with another name."""
    columns: Row = {}
    for name, sample in samples.items():
        ends = as_json(evidence.interval(measures.get(name, name), sample)) or {}
        columns[name] = ends.get("estimate")
        columns[f"{name}_low"] = ends.get("low")
        columns[f"{name}_high"] = ends.get("high")
    return columns


def _risks(run: Predictions, draws: Resamples) -> tuple[Array, Array]:
    """Risk at each of `COVERAGES`: (coverages,), and of each draw (draws, coverages)."""
    levels, hits = confidence(run), likeliest_right(run)
    ranks = [max(1, round(coverage * len(run))) - 1 for coverage in COVERAGES]
    return (
        risk_by_coverage(levels, hits)[0, ranks],
        risk_by_coverage(levels, hits, draws.questions)[:, ranks],
    )


def _runs(
    study: Study, sweep: Sweep, method: str, sparsity: float, train_size: int
) -> Sequence[Predictions]:
    """The test predictions of a method's models, one a seed."""
    names: Iterable[str]
    if method == "teacher":
        names = ["teacher"]
    elif method == "pruned":
        names = [f"pruned/{sparsity}"]
    else:
        folder = {"finetune": "finetuned", "distill": "distilled"}[method]
        names = [student_run(folder, sparsity, train_size, seed) for seed in sweep.seed]
    return [study[name].of_split("test") for name in names]


def _seeds(evidence: Evidence, method: str) -> int:
    return 1 if method in ("teacher", "pruned") else evidence.seeds
