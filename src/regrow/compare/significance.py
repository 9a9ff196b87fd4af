"""Is one loss better than the other? Exact paired tests, verdicts, and what a test could detect."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from regrow.compare.bootstrap import Array, Interval, Sample

POWER = 0.8


@dataclass(frozen=True)
class Paired:
    """The exact paired test of two accuracies on the same questions and seeds.

    only_right, only_other: answers (over all seeds) that only the one or only the other got right.
    p: two-sided; NaN where no answer differs, so that the test cannot say.
    """

    only_right: int
    only_other: int
    p: float


def paired_test(right: Array, other: Array) -> Paired:
    """McNemar's exact test, and its generalisation to several seeds; both are 0 or 1.

    With one seed: of the questions that exactly one model answers right, each model should get
    half (McNemar 1947, Psychometrika 12; the exact form, as in Dietterich 1998, Neural Computation
    10). With several, the question is the unit: under the null hypothesis the difference of its
    two counts of right answers is as likely with either sign (Fisher's randomisation test, here
    exact). The noise of training is in the interval of the difference, not in this p-value.

    right, other: (seeds, questions), over the same questions and seeds in the same order.
    """
    gaps = (right - other).sum(axis=0).round().astype(np.int64)
    discordant = gaps[gaps != 0]
    return Paired(
        only_right=int((right > other).sum()),
        only_other=int((right < other).sum()),
        p=_sign_flip_p(discordant) if discordant.size else np.nan,
    )


def holm(p_values: Sequence[float] | Array) -> Array:
    """p-values adjusted for testing them all (Holm 1979, Scandinavian Journal of Statistics 6).

    One that cannot be had (NaN) stays so, but counts among the tests made.
    """
    order = np.argsort(p_values)  # NaN comes last
    scaled = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return adjusted


def verdict(difference: Interval, margin: float, clear: bool = True) -> str:
    """What the interval of a difference (one minus other) says at a margin, both in accuracy.

    `superior`: all above 0. `non-inferior`: all above -margin. `inferior`: all below -margin.
    `inconclusive`: none of these. `cannot say`: there is no interval. With a 95 % interval the
    claim of non-inferiority is a one-sided test at 2.5 % (Piaggio et al. 2012, JAMA 308).

    clear: whether the paired test is significant among all of its family. If not, neither is
    ahead: `superior` becomes `non-inferior`, and `inferior` `inconclusive`.
    """
    if np.isnan(difference.low):
        return "cannot say"
    if difference.low > 0 and clear:
        return "superior"
    if difference.low > -margin:
        return "non-inferior"
    return "inferior" if difference.high < -margin and clear else "inconclusive"


def detectable(difference: Sample, confidence: float) -> float:
    """The smallest true difference that this test would detect in 4 of 5 repetitions.

    (z(1 - alpha / 2) + z(power)) times the standard error, here that of the bootstrap (Bloom 1995,
    Evaluation Review 19; Card et al. 2020, EMNLP, for natural language processing). NaN where the
    draws do not vary.
    """
    error = float(np.std(difference[1:]))
    factor = float(stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(POWER))
    return factor * error if error >= 1e-12 else np.nan


def questions_needed(
    questions: int, interval: Interval, distance: float, held: float = 0.0
) -> int | None:
    """How many questions would shrink the interval's half width to `distance`, if all else stays.

    The variance falls with the number of questions, but for the share that makes a half width of
    `held`, such as that of the calibration questions. The seeds' share stays too, so that with
    several seeds this is a lower bound. None where there is no interval, or where no number of
    these questions would do.
    """
    if np.isnan(interval.low) or distance <= held:
        return None
    half = (interval.high - interval.low) / 2
    return int(np.ceil(questions * (half**2 - held**2) / (distance**2 - held**2)))


def _sign_flip_p(gaps: Array) -> float:
    """P(|sum of +-gaps| >= |sum of gaps|) over all equally likely signs, exactly."""
    sizes, counts = np.unique(np.abs(gaps), return_counts=True)
    # The distribution of the sum, from -total to total in steps of 1.
    distribution = np.ones(1)
    for size, count in zip(sizes.astype(int), counts.astype(int), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = np.convolve(distribution, steps)
    total = len(distribution) // 2
    extreme = np.abs(np.arange(-total, total + 1)) >= abs(int(gaps.sum()))
    return float(min(1.0, distribution[extreme].sum()))
