"""Intervals and paired differences by resampling questions and seeds; no model is needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regrow.support.schema import Compare

Array = NDArray[np.float64]
Counts = NDArray[np.integer]
CHUNK = 4_000_000  # resampled indices held at once: 32 MB, whatever the number of questions


class Interval(NamedTuple):
    """An estimate and its confidence interval; NaN is what cannot be had."""

    estimate: float
    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan, np.nan)


Sample = Array
"""A statistic of the data and then of each draw, shape (1 + draws,); NaN where it cannot be had.

Samples of the same draws are paired: their difference is that of each draw.
"""


@dataclass(frozen=True)
class Resamples:
    """How often each question and each seed is taken: once by the data, then by each draw.

    questions: (1 + draws, questions), each row summing to the number of questions.
    seeds: (1 + draws, seeds), each row summing to the number of seeds.
    """

    questions: NDArray[np.uint8]
    seeds: NDArray[np.uint8]


def resample(questions: int, seeds: int, draws: int, seed: int, stream: int = 0) -> Resamples:
    """Draw questions and, apart from them, seeds, with replacement.

    Two crossed factors, each resampled whole: every seed of a draw sees the same questions. This
    is the pigeonhole bootstrap (Owen 2007, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1(2)). It errs on the wide side for the noise of single answers; for the seeds
    themselves it is narrow by a factor of (seeds - 1) / seeds of their variance. With one seed
    an interval says nothing about the noise of training.

    The questions drawn do not depend on the number of seeds. Another `stream` gives draws that are
    independent of these, such as those of the calibration questions.
    """
    for_questions, for_seeds = np.random.SeedSequence([seed, stream]).spawn(2)
    return Resamples(
        questions=_counts(questions, draws, np.random.default_rng(for_questions)),
        seeds=_counts(seeds, draws, np.random.default_rng(for_seeds)),
    )


def in_chunks(function: Callable[[Counts], Array], counts: Counts | None, size: int) -> Array:
    """Apply `function` to a few draws at a time, so that memory does not grow with the draws.

    counts: how often each draw takes each of `size` questions, (draws, size); without it each is
    taken once. The function gives an array with a row a draw.
    """
    if counts is None:
        return function(np.ones((1, size), dtype=np.uint8))
    step = max(1, CHUNK // max(1, size))
    parts = [function(counts[start : start + step]) for start in range(0, len(counts), step)]
    return np.concatenate(parts)


_draws = lru_cache(resample)


def mean_sample(values: Array, resamples: Resamples) -> Sample:
    """The mean of `values`, shape (seeds, questions), and that of each draw.

    One row may stand with resamples of several seeds: it is a model that all seeds share, such as
    the teacher.
    """
    seeds, questions = values.shape
    if questions != resamples.questions.shape[1] or seeds not in (1, resamples.seeds.shape[1]):
        raise ValueError(
            f"values {values.shape} do not fit {resamples.questions.shape[1]} "
            f"questions and {resamples.seeds.shape[1]} seeds"
        )

    def means(counts: Counts) -> Array:
        return np.asarray(counts.astype(np.float64) @ values.T / questions)

    of_seeds = in_chunks(means, resamples.questions, questions)
    if seeds == 1:
        return of_seeds[:, 0]
    return np.asarray((of_seeds * resamples.seeds).sum(axis=1) / seeds, dtype=np.float64)


def mean_interval(
    values: Array, settings: Compare, bounds: tuple[float, float] | None = None, stream: int = 0
) -> Interval:
    """The mean of `values`, shape (seeds, questions), with its interval; see `interval_of`.

    Values of as many questions and seeds stand on the same draws; see `resample`.
    """
    seeds, questions = values.shape
    if not values.size:
        raise ValueError("there is no question to average over")
    draws = _draws(questions, seeds, settings.resamples, settings.seed, stream)
    sample = mean_sample(values, draws)
    return interval_of(sample, settings.confidence, bounds=bounds, questions=questions)


def over_seeds(samples: Sequence[Sample], resamples: Resamples) -> Sample:
    """The mean over seeds of a statistic that each seed's model has; draws resample the seeds."""
    if len(samples) == 1:
        return samples[0]
    return np.asarray((np.stack(samples, axis=1) * resamples.seeds).sum(axis=1) / len(samples))


def average(samples: Sequence[Sample]) -> Sample:
    """The mean of paired samples, such as that of one difference over all sparsities."""
    return np.asarray(np.mean(samples, axis=0))


def interval_of(
    sample: Sample,
    confidence: float,
    centred: bool = False,
    bounds: tuple[float, float] | None = None,
    questions: int = 1,
) -> Interval:
    """The middle `confidence` of the draws for which a statistic can be had.

    This is the percentile bootstrap: Efron and Tibshirani 1993, "An Introduction to the Bootstrap",
    section 13.3. Where the estimate lies outside, the nearer end moves to it. No estimate where
    the data give none; no ends where all draws are equal and there are no bounds.

    centred: shift the draws so that their mean is the estimate, for statistics that are biased
    upon resampling, such as a calibration error: the interval is one of their noise alone.

    bounds: for the mean over `questions` of values, the smallest and the largest that there can
    be. When all values are equal, every draw is too, and the bootstrap would claim certainty. Then
    of n questions none differs, so with `confidence` at most 1 - (tail)^(1/n) of all questions do
    (Clopper and Pearson 1934, Biometrika 26(4)), each by no more than the bounds allow.
    """
    sample = np.round(sample, 12)  # 0 is to be 0, and not a rounding error above it
    estimate, draws = float(sample[0]), sample[1:][np.isfinite(sample[1:])]
    tail = (1 - confidence) / 2
    if not np.isfinite(estimate):
        return UNKNOWN
    if draws.size and np.ptp(draws) > 0:
        if centred:
            draws = draws - draws.mean() + estimate
        low, high = (float(end) for end in np.quantile(draws, [tail, 1 - tail]))
        return Interval(estimate, min(low, estimate), max(high, estimate))
    if bounds is None:
        return Interval(estimate, np.nan, np.nan)
    estimate = min(max(estimate, bounds[0]), bounds[1])
    low, high = (estimate - (1 - tail ** (1 / questions)) * (estimate - end) for end in bounds)
    return Interval(estimate, low, high)


def _counts(size: int, draws: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A row of ones, and `draws` that say how often each of `size` is taken in `size` takings.

    A byte holds any of them: that one of 256 things or more is taken 256 times has a probability
    below 1e-400.
    """
    counts = np.ones((1 + draws, size), dtype=np.uint8)
    if size <= 1:
        return counts
    step = max(1, CHUNK // size)
    for start in range(1, 1 + draws, step):
        rows = min(step, 1 + draws - start)
        taken = rng.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        found = np.bincount(taken.ravel(), minlength=rows * size)
        counts[start : start + rows] = found.reshape(rows, size)
    return counts
