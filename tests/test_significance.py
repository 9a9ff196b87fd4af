"""Paired tests against scipy, statsmodels and enumeration; p-values under the null; verdicts."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from regrow.compare.bootstrap import Array, Interval, mean_sample, resample
from regrow.compare.significance import detectable, holm, paired_test, questions_needed, verdict

binary = st.sampled_from([0.0, 1.0])
pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float64, shape, elements=binary),
        hnp.arrays(np.float64, shape, elements=binary),
    )
)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 9))
@settings(deadline=None)
def test_one_seed_is_mcnemars_exact_test(b: int, c: int, both: int) -> None:
    right = np.array([[1.0] * b + [0.0] * c + [1.0] * both])
    other = np.array([[0.0] * b + [1.0] * c + [1.0] * both])
    found = paired_test(right, other)
    assert (found.only_right, found.only_other) == (b, c)
    if b + c == 0:
        assert np.isnan(found.p)
    else:
        assert found.p == pytest.approx(stats.binomtest(b, b + c).pvalue, rel=1e-9)


def test_one_seed_agrees_with_statsmodels() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    rng = np.random.default_rng(0)
    for _ in range(20):
        right, other = (np.where(rng.random((1, 150)) < rate, 1.0, 0.0) for rate in (0.5, 0.4))
        table = [[((right == a) & (other == b)).sum() for b in (1, 0)] for a in (1, 0)]
        theirs = tables.mcnemar(table, exact=True).pvalue
        assert paired_test(right, other).p == pytest.approx(theirs, abs=1e-9)


@given(pairs)
@settings(deadline=None)
def test_several_seeds_equal_the_enumeration_of_all_signs(pair: tuple[Array, Array]) -> None:
    right, other = pair
    gaps = (right - other).sum(axis=0)
    sums = [
        abs(float(np.dot(signs, gaps))) for signs in itertools.product((-1, 1), repeat=len(gaps))
    ]
    found = paired_test(right, other).p
    if not gaps.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(np.mean(np.array(sums) >= abs(gaps.sum()) - 1e-9))


@given(pairs)
@settings(deadline=None)
def test_the_test_is_symmetric_and_blind_to_the_order(pair: tuple[Array, Array]) -> None:
    right, other = pair
    order = np.random.default_rng(0).permutation(right.shape[1])
    one, two = paired_test(right, other), paired_test(other[:, order], right[:, order])
    assert (one.only_right, one.only_other) == (two.only_other, two.only_right)
    assert one.p == pytest.approx(two.p, nan_ok=True)


@pytest.mark.parametrize("seeds", [1, 3])
def test_p_values_under_the_null_are_uniform_or_above(seeds: int) -> None:
    """A discrete p-value is at most as often below a level as the level says.

    1,500 worlds: three standard errors are 1.7 points at 5 % and 3.9 points at 50 %.
    """
    rng = np.random.default_rng(0)
    values = []
    for _ in range(1500):
        ability = rng.random((1, 200))
        right, other = (
            np.where(ability + 0.3 * rng.standard_normal((seeds, 200)) < 0.5, 1.0, 0.0)
            for _ in range(2)
        )
        values.append(paired_test(right, other).p)
    p = np.array(values, dtype=float)
    for level, above in ((0.05, 0.017), (0.2, 0.031), (0.5, 0.039)):
        assert (p <= level).mean() <= level + above
        # And not much less: the answers that differ are many, so that steps are small.
        assert (p <= level).mean() >= 0.75 * level - above


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(deadline=None)
def test_holm_is_monotone_and_not_below_the_p_values(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= 1
    order = np.argsort(p_values, kind="stable")
    ordered = [adjusted[index] for index in order]
    assert ordered == sorted(ordered)


def test_holm_agrees_with_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = list(np.random.default_rng(0).random(12) ** 3)
    theirs = multitest.multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(theirs), abs=1e-9)


def test_holm_counts_tests_that_cannot_say() -> None:
    nan = float("nan")
    assert holm([0.01, nan, 0.04]) == pytest.approx([0.03, nan, 0.08], nan_ok=True)
    assert np.isnan(holm([nan])).all()
    assert not holm([]).size


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.05, "superior"),
        (-0.01, 0.03, "non-inferior"),
        (-0.015, -0.005, "non-inferior"),
        (-0.03, 0.01, "inconclusive"),
        (-0.05, -0.03, "inferior"),
        (-0.05, -0.01, "inconclusive"),
        (math.nan, math.nan, "cannot say"),
    ],
)
def test_verdicts(low: float, high: float, expected: str) -> None:
    assert verdict(Interval(0.0, low, high), 0.02) == expected


def test_a_difference_of_the_detectable_size_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    questions, found, size = 400, 0, 0.0
    draws = resample(questions, 1, 400, 0)

    def gaps(shift: float) -> Array:
        return np.where(rng.random((1, questions)) < 0.15 + shift, 1.0, 0.0) - np.where(
            rng.random((1, questions)) < 0.15, 1.0, 0.0
        )

    size = detectable(mean_sample(gaps(0.07), draws), 0.95)
    assert 0.03 < size < 0.12
    for _ in range(300):
        sample = mean_sample(gaps(size), draws)
        found += abs(sample[0]) > 1.96 * sample[1:].std()
    assert found / 300 == pytest.approx(0.8, abs=0.08)


def test_what_cannot_vary_detects_nothing() -> None:
    nothing = mean_sample(np.zeros((1, 9)), resample(9, 1, 100, 0))
    assert np.isnan(detectable(nothing, 0.95))


def test_questions_needed_grow_with_the_square() -> None:
    interval = Interval(0.0, -0.04, 0.04)
    assert questions_needed(400, interval, 0.02) == 1600
    assert questions_needed(400, interval, 0) is None
    assert questions_needed(400, Interval(0.0, math.nan, math.nan), 0.02) is None
