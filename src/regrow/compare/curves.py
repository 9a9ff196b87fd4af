"""The points of every curve and figure, as the rows of CSV files."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
from scipy.stats import norm

from regrow.compare.bootstrap import Array, Interval, Resamples, interval_of, over_seeds
from regrow.compare.evidence import CellEvidence, Evidence
from regrow.compare.measures import ALPHAS, BINS
from regrow.compare.study import LOSSES, METHODS
from regrow.compare.uncertainty import SCORES, reliability, risk_by_coverage
from regrow.support.files import as_json

Row = dict[str, str | int | float | None]
"""A CSV line by column; None is an empty field."""
Lines = Iterator[tuple[str, dict[str, Any]]]
"""Names of files, each with a line that it holds; an interval there stands for three columns."""

COVERAGES = tuple(step / 20 for step in range(1, 21))
BAND_DRAWS = 1000  # of the risk-coverage curves: a band needs fewer draws than a number in a table
CURVES = {"nll": "nll", "ece": "ece", "set_size": "lac_size_0.1"}  # measures by column


def all_curves(evidence: Evidence) -> dict[str, list[Row]]:
    """Every CSV file by its name without the suffix, such as `reliability`."""
    curves: dict[str, list[Row]] = {}
    about = {"questions": evidence.questions, "seeds": len(evidence.seeds)}
    for method, cell in product(METHODS, evidence.cells):
        alone = {} if method in LOSSES else {"seeds": 1}
        for name, line in (
            *measured(cell, method),
            *reliability_curve(evidence, cell, method),
            *risk_curve(evidence, cell, method),
        ):
            row = {"method": method} | _row(cell, line | about | alone | line)
            curves.setdefault(name, []).append(row)
    curves["difference"] = []
    for cell in evidence.cells:
        said = {"named": cell.named, "verdict": evidence.verdict(cell)}
        curves["difference"].append(_row(cell, {"difference": cell.lead, **said, **about}))
    return curves


def measured(cell: CellEvidence, method: str) -> Lines:
    """Accuracy, the measures in `CURVES`, and conformal sets at each alpha.

    The teacher, the same everywhere, stands at each cell, to draw as a level line.
    """
    found = {name: ends[method] for name, ends in cell.intervals.items() if method in ends}
    yield "accuracy", {"mlp_retention": cell.mlp_retention, "accuracy": found["accuracy"]}
    yield "measures", {name: found[measure] for name, measure in CURVES.items()}
    for kind, alpha in product(SCORES, ALPHAS):
        parts = {part: found[f"{kind}_{part}_{alpha}"] for part in ("coverage", "size")}
        yield "conformal", {"sets": kind, "alpha": alpha, **parts}


def reliability_curve(evidence: Evidence, cell: CellEvidence, method: str) -> Lines:
    """Mean confidence and accuracy of bins of equal mass, with Wilson intervals.

    Several seeds are averaged bin by bin; the interval is that of one seed's number of questions.
    """
    points = [
        reliability(model.test.confidence, model.test.hits, BINS)
        for model in evidence.runs(cell.place, method)
    ]
    # Ties may leave a model with fewer bins than another seed's.
    bins = min(len(mass) for *_, mass in points)
    level, hit, mass = np.mean([[part[:bins] for part in parts] for parts in points], axis=0)
    low, high = wilson(hit, mass, evidence.settings.confidence)
    for confidence, *accuracy, questions in zip(level, hit, low, high, mass, strict=True):
        line = {"confidence": confidence, "accuracy": Interval(*accuracy), "questions": questions}
        yield "reliability", line


def risk_curve(evidence: Evidence, cell: CellEvidence, method: str) -> Lines:
    """Risk at each of `COVERAGES`, with intervals from `BAND_DRAWS` draws at most."""
    rows = slice(1 + BAND_DRAWS)
    draws = Resamples(evidence.draws.questions[rows], evidence.draws.seeds[rows])
    ranks = [max(1, round(coverage * evidence.questions)) - 1 for coverage in COVERAGES]
    curves = [
        risk_by_coverage(model.test.confidence, model.test.hits, draws.questions)[:, ranks].T
        for model in evidence.runs(cell.place, method)
    ]
    for coverage, *samples in zip(COVERAGES, *curves, strict=True):
        risk = interval_of(over_seeds(samples, draws), evidence.settings.confidence)
        yield "risk", {"coverage": coverage, "risk": risk}


def wilson(share: Array, size: Array, level: float) -> tuple[Array, Array]:
    """The score interval of a share of `size` things (Wilson 1927, JASA 22): two like `share`.

    `size` need not be whole: a bin may hold part of a question.
    """
    z = float(norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    low, high = np.minimum(middle - half, share), np.maximum(middle + half, share)
    return np.maximum(0, low), np.minimum(1, high)


def _row(cell: CellEvidence, values: dict[str, Any]) -> Row:
    """A line of a cell; an interval's ends are in `NAME_low` and `NAME_high`."""
    row: Row = {**asdict(cell.place), "retention": as_json(cell.retention)}
    for name, value in values.items():
        parts = {name: value}
        if isinstance(value, Interval):
            parts = {name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high}
        row |= as_json(parts)
    return row
