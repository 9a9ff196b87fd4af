"""What a model's distribution over the choices is worth: calibration, ranking, conformal sets.

A confidence belongs to the choice that is made, and questions of equal confidence are taken in
random order, in expectation. `counts` says how often each draw of a bootstrap takes each question,
shape (draws, questions); without it a function gives the figure of the data themselves.
"""

from typing import Literal

import numpy as np

from regrow.compare.answers import Answers
from regrow.compare.bootstrap import Array, Counts, in_chunks

Score = Literal["lac", "aps"]
SCORES: tuple[Score, ...] = ("lac", "aps")
TIE = 12  # decimals: confidences closer than this are equal, so that rounding breaks no tie


def calibration_error(
    confidences: Array, hits: Array, bins: int, counts: Counts | None = None
) -> Array:
    """Expected calibration error over `bins` bins of equal mass: shape (draws,).

    Sum over bins of mass times |mean hit - mean confidence| (Naeini, Cooper and Hauskrecht 2015,
    AAAI, with bins of equal mass as in Nguyen and O'Connor 2015, EMNLP). A question that lies
    across a bin's edge is shared between both. The estimate is biased upwards, the more so the
    fewer questions there are (Kumar, Liang and Ma 2019, NeurIPS): compare models at equal numbers
    of questions and bins only.

    confidences, hits: (questions,); a hit is 0 or 1.
    """

    def one(chunk: Counts) -> Array:
        level, hit = _by_confidence(confidences, hits, chunk)
        size = level.shape[1]
        total = np.pad(np.cumsum(hit - level, axis=1), ((0, 0), (1, 0)))
        edges = np.linspace(0, size, min(bins, size) + 1)
        below = np.minimum(edges.astype(np.intp), size - 1)
        share = edges - below
        at_edges = total[:, below] * (1 - share) + total[:, below + 1] * share
        return np.asarray(np.abs(np.diff(at_edges, axis=1)).sum(axis=1) / size, dtype=np.float64)

    return in_chunks(one, counts, len(confidences))


def reliability(confidences: Array, hits: Array, bins: int) -> tuple[Array, Array, Array]:
    """Mean confidence, mean hit and mass (in questions) of each bin that holds a question.

    The points of a reliability diagram, by scikit-learn's `calibration_curve`: bins lie between
    quantiles, and equal confidences share one.
    """
    from sklearn.calibration import calibration_curve

    levels = np.clip(np.round(confidences, TIE), 0, 1)
    bins = min(bins, len(levels))
    hit, level = calibration_curve(hits, levels, n_bins=bins, strategy="quantile")
    # calibration_curve keeps the masses to itself; these are its own bins.
    edges = np.percentile(levels, np.linspace(0, 1, bins + 1) * 100)
    mass = np.bincount(np.searchsorted(edges[1:-1], levels))
    return level, hit, mass[mass > 0].astype(np.float64)


def risk_by_coverage(confidences: Array, hits: Array, counts: Counts | None = None) -> Array:
    """The share of errors among the k most confident answers: (draws, questions), k from 1 up.

    The risk-coverage curve of selective prediction (El-Yaniv and Wiener 2010, JMLR 11), at the
    coverages k / questions.
    """

    def one(chunk: Counts) -> Array:
        _, misses = _by_confidence(-confidences, 1 - hits, chunk)
        taken = np.arange(1, misses.shape[1] + 1)
        return np.asarray(np.cumsum(misses, axis=1) / taken, dtype=np.float64)

    return in_chunks(one, counts, len(confidences))


def selective_risk(
    confidences: Array, hits: Array, coverage: float, counts: Counts | None = None
) -> tuple[Array, Array]:
    """The area under the risk-coverage curve and its height at `coverage`: two arrays (draws,).

    The area (AURC) is the curve's mean over all coverages: Geifman, Uziel and El-Yaniv 2019,
    "Bias-reduced uncertainty estimation for deep neural classifiers", ICLR.
    """
    rank = max(1, round(coverage * len(confidences))) - 1

    def one(chunk: Counts) -> Array:
        curves = risk_by_coverage(confidences, hits, chunk)
        return np.stack([curves.mean(axis=1), curves[:, rank]], axis=1)

    area, height = in_chunks(one, counts, len(confidences)).T
    return area, height


def conformal_scores(answers: Answers, score: Score) -> Array:
    """How badly each choice conforms: (questions, most choices), infinite for missing choices.

    `lac`: 1 - the choice's probability (Sadinle, Lei and Wasserman 2019, "Least ambiguous
    set-valued classifiers with bounded error levels", JASA 114). Sets may be empty.
    `aps`: the probability of all choices that are no less likely than it, itself included
    (Romano, Sesia and Candès 2020, "Classification with valid and adaptive coverage", NeurIPS),
    without their randomisation: the same answer every time, and coverage on the safe side.
    """
    probabilities = answers.probabilities
    if score == "lac":
        scores = 1 - probabilities
    else:
        as_likely = probabilities[:, :, None] >= probabilities[:, None, :]
        scores = (probabilities[:, :, None] * as_likely).sum(axis=1)
    # Rounded, so that equal scores computed in another order are equal.
    return np.where(np.isfinite(answers.logs), np.round(scores, TIE), np.inf)


def gold_scores(answers: Answers, scores: Array) -> Array:
    """The score of each question's gold choice: shape (questions,)."""
    return scores[np.arange(len(answers)), answers.gold]


def conformal_thresholds(scores: Array, alpha: float, counts: Counts | None = None) -> Array:
    """The threshold that gold scores stay below with probability 1 - alpha: shape (draws,).

    The ceil((n + 1)(1 - alpha))-th smallest of the n calibration questions' gold scores, and
    infinite where n is too small (Vovk, Gammerman and Shafer 2005; Angelopoulos and Bates 2023,
    arXiv 2107.07511, section 1), if calibration and test questions are exchangeable.
    """
    size = len(scores)
    # Less a rounding error's worth: (9 + 1)(1 - 0.1) is to be 9, and not the next above.
    rank = int(np.ceil((size + 1) * (1 - alpha) - 1e-9))
    order = np.argsort(scores, kind="stable")
    ordered = np.append(scores[order], np.inf)

    def one(chunk: Counts) -> Array:
        return np.asarray(ordered[(np.cumsum(chunk[:, order], axis=1) < rank).sum(axis=1)])

    return in_chunks(one, counts, size)


def conformal_sets(
    scores: Array, gold: Array, thresholds: Array, counts: Counts | None = None
) -> tuple[Array, Array]:
    """Coverage and mean size of the sets {choice: score <= threshold}: two arrays of (draws,).

    scores: (questions, most choices); gold: (questions,), the gold choices' scores; thresholds:
    (draws,), from draws of the calibration questions that are independent of `counts`, or (1,).
    """
    taken = np.ones((1, len(scores))) if counts is None else counts
    covered, sizes = np.empty(len(taken)), np.empty(len(taken))
    for level in np.unique(thresholds):
        rows = np.broadcast_to(thresholds == level, len(taken))
        weights = taken[rows].astype(np.float64)
        covered[rows] = weights @ (gold <= level)
        # Not `scores <= level`: at an infinite threshold the missing choices stay out.
        sizes[rows] = weights @ ((scores <= level) & np.isfinite(scores)).sum(axis=1)
    return covered / len(scores), sizes / len(scores)


def conformal(
    test: Answers,
    held: Answers,
    score: Score,
    alpha: float,
    counts: Counts | None = None,
    held_counts: Counts | None = None,
) -> tuple[Array, Array]:
    """Coverage and mean size of the sets that `held` questions calibrate: two arrays (draws,)."""
    scores, kept = (conformal_scores(one, score) for one in (test, held))
    thresholds = conformal_thresholds(gold_scores(held, kept), alpha, held_counts)
    return conformal_sets(scores, gold_scores(test, scores), thresholds, counts)


def _by_confidence(confidences: Array, hits: Array, counts: Counts) -> tuple[Array, Array]:
    """Each draw's answers, the least confident first: confidences and hits, (draws, questions).

    Answers of equal confidence have their mean hit each.
    """
    levels, group = np.unique(np.round(confidences, TIE), return_inverse=True)
    order = np.argsort(group, kind="stable")
    mass = counts[:, order].astype(np.int64)
    hit = mass * hits[order]
    if len(levels) < len(confidences):  # without ties, as is usual, it is far quicker
        starts = np.searchsorted(group[order], np.arange(len(levels)))
        mass, hit = (np.add.reduceat(part, starts, axis=1) for part in (mass, hit))
    hit = hit / np.maximum(mass, 1)
    level, hit = (
        np.repeat(part.ravel(), mass.ravel()).reshape(len(mass), -1)
        for part in (np.broadcast_to(levels, mass.shape), hit)
    )
    return level, hit
