"""The points of every curve and figure, as the rows of CSV files."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import norm

from regrow.compare.bootstrap import Array, Interval, Sample, interval_of, over_seeds
from regrow.compare.evidence import CellEvidence, Evidence
from regrow.compare.measures import ALPHAS, BINS
from regrow.compare.study import LOSSES, METHODS
from regrow.compare.uncertainty import SCORES, reliability, risk_by_coverage
from regrow.support.files import as_json

Row = dict[str, str | int | float | None]
"""A CSV line by column; None is an empty field."""
Values = Iterator[dict[str, Any]]
"""The same by what it says: an interval stands for three columns."""

COVERAGES = tuple(step / 20 for step in range(1, 21))
BAND_DRAWS = 1000  # of the risk-coverage curves: a band needs fewer draws than a number in a table
CURVES = {"nll": "nll", "ece": "ece", "set_size": "lac_size_0.1"}  # measures by column


def all_curves(evidence: Evidence) -> dict[str, list[Row]]:
    """Every CSV file by its path without the suffix, such as `reliability/distill`."""
    curves: dict[str, list[Row]] = {}
    for method in METHODS:
        about = {
            "questions": evidence.questions,
            "seeds": len(evidence.seeds) if method in LOSSES else 1,
        }
        for name, values in (
            ("accuracy", accuracy_values),
            ("measures", measure_values),
            ("conformal", conformal_values),
            ("reliability", reliability_values),
            ("risk", risk_values),
        ):
            curves[f"{name}/{method}"] = [
                _row(cell, row | {key: row.get(key, value) for key, value in about.items()})
                for cell in evidence.cells
                for row in values(evidence, cell, method)
            ]
    curves["difference"] = [
        _row(
            cell,
            {
                "difference": evidence.lead(cell),
                "named": cell.named,
                "verdict": evidence.verdict(cell),
                "questions": evidence.questions,
                "seeds": len(evidence.seeds),
            },
        )
        for cell in evidence.cells
    ]
    return curves


def accuracy_values(evidence: Evidence, cell: CellEvidence, method: str) -> Values:
    """Accuracy; the teacher, the same everywhere, stands at each cell, to draw as a level line."""
    accuracy = evidence.interval("accuracy", cell.methods[method]["accuracy"])
    yield {"mlp_retention": cell.mlp_retention, "accuracy": accuracy}


def measure_values(evidence: Evidence, cell: CellEvidence, method: str) -> Values:
    """What else changes with retention and train size: the measures in `CURVES`."""
    yield {
        name: evidence.interval(measure, cell.methods[method][measure])
        for name, measure in CURVES.items()
    }


def conformal_values(evidence: Evidence, cell: CellEvidence, method: str) -> Values:
    """Coverage and mean size of LAC and APS sets, at each alpha."""
    for kind in SCORES:
        for alpha in ALPHAS:
            parts = {part: f"{kind}_{part}_{alpha}" for part in ("coverage", "size")}
            yield {"sets": kind, "alpha": alpha} | {
                part: evidence.interval(measure, cell.methods[method][measure])
                for part, measure in parts.items()
            }


def reliability_values(evidence: Evidence, cell: CellEvidence, method: str) -> Values:
    """Mean confidence and accuracy of bins of equal mass, with Wilson intervals.

    Several seeds are averaged bin by bin; the interval is that of one seed's number of questions.
    """
    points = [
        reliability(model.test.confidence, model.test.hits, BINS)
        for model in evidence.runs(cell, method)
    ]
    # Ties may leave a model with fewer bins than another seed's.
    bins = min(len(mass) for *_, mass in points)
    level, hit, mass = (
        np.mean([part[:bins] for part in parts], axis=0) for parts in zip(*points, strict=True)
    )
    low, high = wilson(hit, mass, evidence.settings.confidence)
    for confidence, *accuracy, questions in zip(level, hit, low, high, mass, strict=True):
        yield {"confidence": confidence, "accuracy": Interval(*accuracy), "questions": questions}


def risk_values(evidence: Evidence, cell: CellEvidence, method: str) -> Values:
    """Risk at each of `COVERAGES`, with intervals from `BAND_DRAWS` draws at most."""
    draws = evidence.draws.first(BAND_DRAWS)
    ranks = [max(1, round(coverage * evidence.questions)) - 1 for coverage in COVERAGES]
    curves = [
        [
            risk_by_coverage(model.test.confidence, model.test.hits, counts)[:, ranks]
            for counts in (None, draws.questions)
        ]
        for model in evidence.runs(cell, method)
    ]
    for index, coverage in enumerate(COVERAGES):
        samples = [Sample(float(once[0, index]), drawn[:, index]) for once, drawn in curves]
        risk = interval_of(over_seeds(samples, draws), evidence.settings.confidence)
        yield {"coverage": coverage, "risk": risk}


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


def _row(cell: CellEvidence, values: Mapping[str, Any]) -> Row:
    """A line of a cell; an interval's ends are in `NAME_low` and `NAME_high`."""
    row: Row = {**asdict(cell.place), "retention": as_json(cell.retention)}
    for name, value in values.items():
        if isinstance(value, Interval):
            row |= as_json(dict(zip((name, f"{name}_low", f"{name}_high"), value, strict=True)))
        else:
            row[name] = as_json(value)
    return row
