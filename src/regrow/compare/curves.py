"""The points of every curve and figure, as the rows of CSV files."""

from collections.abc import Iterator

import numpy as np
from scipy.stats import norm

from regrow.compare.bootstrap import Array, Interval, Sample, as_json, interval_of, over_seeds
from regrow.compare.evidence import CellEvidence, Evidence
from regrow.compare.measures import ALPHAS, BINS
from regrow.compare.study import LOSSES, METHODS
from regrow.compare.tables import cell_verdict
from regrow.compare.uncertainty import SCORES, reliability, risk_by_coverage
from regrow.support.files import rounded

Row = dict[str, str | int | float | None]
"""A CSV line by column; None is an empty field."""

COVERAGES = tuple(step / 20 for step in range(1, 21))
BAND_DRAWS = 1000  # of the risk-coverage curves: a band needs fewer draws than a number in a table
CURVES = {"nll": "nll", "ece": "ece", "set_size": "lac_size_0.1"}  # measures by column


def all_curves(evidence: Evidence) -> dict[str, list[Row]]:
    """Every CSV file by its path without the suffix, such as `reliability/distill`."""
    curves: dict[str, list[Row]] = {}
    for method in METHODS:
        for name, rows in (
            ("accuracy", accuracy_rows),
            ("measures", measure_rows),
            ("conformal", conformal_rows),
            ("reliability", reliability_rows),
            ("risk", risk_rows),
        ):
            curves[f"{name}/{method}"] = [
                _place(cell)
                | row
                | {
                    "questions": row.get("questions", evidence.questions),
                    "seeds": len(evidence.seeds) if method in LOSSES else 1,
                }
                for cell in evidence.cells
                for row in rows(evidence, cell, method)
            ]
    curves["difference"] = [
        _place(cell) | row for cell in evidence.cells for row in difference_row(evidence, cell)
    ]
    return curves


def accuracy_rows(evidence: Evidence, cell: CellEvidence, method: str) -> Iterator[Row]:
    """Accuracy; the teacher, the same everywhere, stands at each cell, to draw as a level line."""
    yield {
        "mlp_retention": rounded(cell.mlp_retention),
        **_column(evidence, "accuracy", "accuracy", cell.methods[method]["accuracy"]),
    }


def measure_rows(evidence: Evidence, cell: CellEvidence, method: str) -> Iterator[Row]:
    """What else changes with retention and train size: the measures in `CURVES`."""
    row: Row = {}
    for name, measure in CURVES.items():
        row |= _column(evidence, measure, name, cell.methods[method][measure])
    yield row


def conformal_rows(evidence: Evidence, cell: CellEvidence, method: str) -> Iterator[Row]:
    """Coverage and mean size of LAC and APS sets, at each alpha."""
    for kind in SCORES:
        for alpha in ALPHAS:
            row: Row = {"sets": kind, "alpha": alpha}
            for part in ("coverage", "size"):
                measure = f"{kind}_{part}_{alpha}"
                row |= _column(evidence, measure, part, cell.methods[method][measure])
            yield row


def difference_row(evidence: Evidence, cell: CellEvidence) -> Iterator[Row]:
    """Accuracy of KL minus CE, as the line of a forest plot, with what is said of it."""
    gap = evidence.interval("accuracy", cell.difference("accuracy"), paired=True)
    yield {
        **_ends("difference", gap),
        "named": cell.named,
        "verdict": cell_verdict(evidence, cell),
        "questions": evidence.questions,
        "seeds": len(evidence.seeds),
    }


def reliability_rows(evidence: Evidence, cell: CellEvidence, method: str) -> Iterator[Row]:
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
    for index in range(bins):
        yield {
            "confidence": rounded(level[index]),
            "accuracy": rounded(hit[index]),
            "accuracy_low": rounded(low[index]),
            "accuracy_high": rounded(high[index]),
            "questions": rounded(mass[index]),
        }


def risk_rows(evidence: Evidence, cell: CellEvidence, method: str) -> Iterator[Row]:
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
        sample = over_seeds(
            [Sample(float(once[0, index]), drawn[:, index]) for once, drawn in curves], draws
        )
        yield {
            "coverage": coverage,
            **_ends("risk", interval_of(sample, evidence.settings.confidence)),
        }


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


def _place(cell: CellEvidence) -> Row:
    return {
        "score": cell.place.score,
        "sparsity": cell.place.sparsity,
        "train_size": cell.place.train_size,
        "retention": rounded(cell.retention),
    }


def _column(evidence: Evidence, measure: str, name: str, sample: Sample) -> Row:
    return _ends(name, evidence.interval(measure, sample))


def _ends(name: str, interval: Interval | None) -> Row:
    """Columns `NAME`, `NAME_low` and `NAME_high`."""
    ends = as_json(interval) or dict.fromkeys(("estimate", "low", "high"))
    return {
        name: ends["estimate"],
        f"{name}_low": ends["low"],
        f"{name}_high": ends["high"],
    }
