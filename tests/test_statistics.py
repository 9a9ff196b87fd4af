"""Intervals: against scipy's bootstrap and exact intervals, their properties, planted effects."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from regrow.compare.bootstrap import (
    Array,
    Interval,
    Resamples,
    average,
    interval_of,
    mean_interval,
    mean_sample,
    over_seeds,
    resample,
)
from regrow.support.files import as_json
from simulated import compare_settings

answers = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.sampled_from([0.0, 1.0]),
)


def accuracy_interval(right: Array, resamples: Resamples, confidence: float) -> Interval:
    return interval_of(mean_sample(right, resamples), confidence, False, (0, 1), right.shape[1])


def difference_interval(
    right: Array, other: Array, resamples: Resamples, confidence: float
) -> Interval:
    gaps = right - other
    return interval_of(mean_sample(gaps, resamples), confidence, False, (-1, 1), gaps.shape[1])


def bernoulli(rate: float, shape: tuple[int, int], seed: int) -> Array:
    return np.where(np.random.default_rng(seed).random(shape) < rate, 1.0, 0.0)


@given(answers)
@settings(deadline=None)
def test_every_accuracy_lies_inside_its_interval_and_inside_0_and_1(right: Array) -> None:
    found = accuracy_interval(right, resample(right.shape[1], right.shape[0], 100, 0), 0.95)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.low < found.high


@given(st.data(), answers)
@settings(deadline=None)
def test_every_difference_lies_inside_its_interval(data: st.DataObject, right: Array) -> None:
    other = data.draw(hnp.arrays(np.float64, right.shape, elements=st.sampled_from([0.0, 1.0])))
    draws = resample(right.shape[1], right.shape[0], 100, 0)
    found = difference_interval(right, other, draws, 0.9)
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    back = difference_interval(other, right, draws, 0.9)
    assert (back.estimate, back.low, back.high) == pytest.approx(
        (-found.estimate, -found.high, -found.low)
    )


def test_counts_are_whole_resamples() -> None:
    draws = resample(questions=7, seeds=3, draws=1000, seed=1)
    assert draws.questions.shape == (1001, 7)
    assert (draws.questions[0] == 1).all() and (draws.seeds[0] == 1).all()
    assert (draws.questions.sum(axis=1) == 7).all()
    assert (draws.seeds.sum(axis=1) == 3).all()
    # Each of 7 takings picks each question with probability 1/7: mean 1, variance 6/7.
    assert draws.questions.mean() == 1
    assert draws.questions.var() == pytest.approx(6 / 7, rel=0.05)
    # The smallest number that there is to draw from.
    assert resample(2, 2, 1000, 1).seeds.var() == pytest.approx(1 / 2, rel=0.1)


def test_draws_are_those_of_the_seed_and_do_not_depend_on_the_number_of_seeds() -> None:
    one, again, other = resample(50, 1, 200, 3), resample(50, 4, 200, 3), resample(50, 1, 200, 4)
    assert (one.questions == again.questions).all()
    assert (one.questions != other.questions).any()


@pytest.mark.parametrize("chunk", [1, 64])
def test_chunks_do_not_change_the_draws(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = bernoulli(0.4, (2, 30), 0)
    whole = resample(30, 2, 500, 0)
    means = mean_sample(right, whole)
    monkeypatch.setattr("regrow.compare.bootstrap.CHUNK", chunk)
    assert (resample(30, 2, 500, 0).questions == whole.questions).all()
    assert mean_sample(right, whole) == pytest.approx(means)


def test_memory_does_not_grow_with_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrow.compare.bootstrap.CHUNK", 10_000)
    right = bernoulli(0.4, (2, 500), 0)
    tracemalloc.start()
    try:
        draws = resample(500, 2, 4000, 0)
        means = mean_sample(right, draws)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What is kept, and a chunk in several forms; all draws as numbers of 8 bytes would take 16 MB.
    assert peak < draws.questions.nbytes + draws.seeds.nbytes + means.nbytes + 1_000_000


def test_samples_equal_means_of_taken_rows() -> None:
    values = np.random.default_rng(0).normal(size=(3, 11))
    draws = resample(11, 3, 40, 0)
    for index, mean in enumerate(mean_sample(values, draws)):
        taken = np.repeat(np.repeat(values, draws.seeds[index], 0), draws.questions[index], 1)
        assert taken.shape == values.shape
        assert mean == pytest.approx(taken.mean())


def test_a_shared_model_needs_one_row() -> None:
    row = bernoulli(0.5, (1, 20), 0)
    draws = resample(20, 3, 50, 0)
    assert mean_sample(row, draws) == pytest.approx(mean_sample(np.repeat(row, 3, 0), draws))
    with pytest.raises(ValueError, match="do not fit"):
        mean_sample(np.repeat(row, 2, 0), draws)


def test_one_seed_agrees_with_scipy() -> None:
    right = bernoulli(0.3, (1, 400), 5)
    found = accuracy_interval(right, resample(400, 1, 20_000, 0), 0.95)
    theirs = stats.bootstrap(
        (right[0],), np.mean, method="percentile", n_resamples=20_000, rng=0, vectorized=True
    ).confidence_interval
    assert found.low == pytest.approx(theirs.low, abs=0.003)
    assert found.high == pytest.approx(theirs.high, abs=0.003)


def test_a_difference_agrees_with_scipys_paired_bootstrap() -> None:
    right, other = bernoulli(0.5, (1, 300), 1), bernoulli(0.4, (1, 300), 2)
    found = difference_interval(right, other, resample(300, 1, 20_000, 0), 0.95)
    theirs = stats.bootstrap(
        (right[0], other[0]),
        lambda a, b, axis: (a - b).mean(axis=axis),
        method="percentile",
        paired=True,
        n_resamples=20_000,
        rng=0,
    ).confidence_interval
    assert found.low == pytest.approx(theirs.low, abs=0.005)
    assert found.high == pytest.approx(theirs.high, abs=0.005)


@given(st.integers(1, 500), st.floats(0.05, 0.999), st.booleans())
@settings(deadline=None)
def test_all_right_or_all_wrong_gives_the_exact_interval(
    questions: int, confidence: float, is_right: bool
) -> None:
    right = np.full((1, questions), float(is_right))
    found = accuracy_interval(right, resample(questions, 1, 100, 0), confidence)
    exact = stats.binomtest(questions * is_right, questions).proportion_ci(confidence, "exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_equal_models_differ_by_zero_but_not_certainly() -> None:
    right = bernoulli(0.5, (1, 400), 0)
    found = difference_interval(right, right, resample(400, 1, 100, 0), 0.95)
    assert found.estimate == 0
    assert -0.01 < found.low < 0 < found.high < 0.01


def test_equal_values_without_bounds_have_no_interval() -> None:
    found = mean_interval(np.full((2, 5), 0.1), compare_settings(resamples=100))
    assert found.estimate == pytest.approx(0.1)
    assert np.isnan([found.low, found.high]).all()


def test_no_question_is_an_error() -> None:
    with pytest.raises(ValueError, match="no question"):
        mean_interval(np.zeros((1, 0)), compare_settings(resamples=100))


@given(answers, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_questions_does_not_matter(right: Array, random: object) -> None:
    order = list(range(right.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    draws = resample(right.shape[1], right.shape[0], 100, 0)
    reordered = Resamples(draws.questions[:, order], draws.seeds)
    before = accuracy_interval(right, draws, 0.9)
    after = accuracy_interval(right[:, order], reordered, 0.9)
    assert (after.estimate, after.low, after.high) == pytest.approx(
        (before.estimate, before.low, before.high)
    )


def test_a_planted_difference_is_found_and_a_planted_zero_is_not() -> None:
    rng = np.random.default_rng(0)
    questions = 1200
    ability = rng.random((1, questions))
    draws = resample(questions, 2, 2000, 0)

    def model(gain: float) -> Array:
        noise = 0.1 * rng.standard_normal((2, questions))
        return np.where(ability + noise < 0.4 + gain, 1.0, 0.0)

    planted = difference_interval(model(0.1), model(0.0), draws, 0.95)
    assert planted.low > 0
    assert planted.estimate == pytest.approx(0.1, abs=0.03)
    nothing = difference_interval(model(0.0), model(0.0), draws, 0.95)
    assert nothing.low <= 0 <= nothing.high


def test_seeds_that_differ_widen_the_interval() -> None:
    seeds = np.concatenate([bernoulli(rate, (1, 500), 1) for rate in (0.3, 0.4, 0.5)])
    draws = resample(500, 3, 4000, 0)
    both = accuracy_interval(seeds, draws, 0.95)
    questions_only = interval_of(mean_sample(seeds.mean(axis=0, keepdims=True), draws), 0.95)
    assert both.high - both.low > 1.5 * (questions_only.high - questions_only.low)


@pytest.mark.parametrize(("seeds", "allowed"), [(1, (0.90, 0.985)), (4, (0.88, 1.0))])
def test_the_interval_covers_as_often_as_it_says(seeds: int, allowed: tuple[float, float]) -> None:
    """Simulated worlds: questions differ in difficulty, seeds in skill; 95 % should be covered.

    300 worlds: the Monte-Carlo error of the coverage is 1.3 points.
    """
    rng = np.random.default_rng(1)
    questions, truth, covered = 150, 0.5, 0
    draws = resample(questions, seeds, 500, 0)
    for _ in range(300):
        difficulty = rng.normal(0, 0.25, (1, questions))
        skill = rng.normal(0, 0.02, (seeds, 1)) if seeds > 1 else 0.0
        right = np.where(rng.random((seeds, questions)) < truth + difficulty + skill, 1.0, 0.0)
        found = accuracy_interval(right, draws, 0.95)
        covered += found.low <= truth <= found.high
    assert allowed[0] <= covered / 300 <= allowed[1]


def test_streams_are_independent_draws() -> None:
    one, two = resample(50, 1, 400, 3), resample(50, 1, 400, 3, stream=1)
    assert abs(np.corrcoef(one.questions.ravel(), two.questions.ravel())[0, 1]) < 0.03


def test_samples_over_seeds_equal_the_mean_over_seeds_and_questions() -> None:
    values = bernoulli(0.4, (3, 40), 0)
    draws = resample(40, 3, 100, 0)
    parts = [mean_sample(row[None], resample(40, 1, 100, 0)) for row in values]
    whole, joined = mean_sample(values, draws), over_seeds(parts, draws)
    assert joined == pytest.approx(whole)
    found = interval_of(whole, 0.95)
    expected = accuracy_interval(values, draws, 0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_samples_are_averaged_draw_by_draw() -> None:
    draws = resample(40, 1, 100, 0)
    one, two = (mean_sample(bernoulli(rate, (1, 40), 1), draws) for rate in (0.4, 0.6))
    assert average([one, two]) == pytest.approx((one + two) / 2)


@pytest.mark.parametrize(("confidence", "ends"), [(0.4, (30, 70)), (0.9, (5, 95))])
def test_an_interval_is_the_middle_of_the_draws_and_holds_the_estimate(
    confidence: float, ends: tuple[float, float]
) -> None:
    draws = np.random.default_rng(0).permutation(101).astype(np.float64)
    for estimate in (50, 3, 98):
        found = interval_of(np.append(estimate, draws), confidence)
        assert found.estimate == estimate
        assert (found.low, found.high) == pytest.approx(
            (min(ends[0], estimate), max(ends[1], estimate))
        )


def test_an_interval_says_when_it_cannot_be_had() -> None:
    nan = float("nan")
    assert np.isnan(interval_of(np.array([nan, 1.0, 2.0]), 0.95)).all()
    for draws in ([1.0, 1.0], [nan, nan], [nan, 1.0]):
        found = interval_of(np.append(1.0, draws), 0.95)
        assert found.estimate == 1.0 and np.isnan([found.low, found.high]).all()


def test_a_rounding_error_is_not_above_0() -> None:
    noise = 0.1 + 0.2 - 0.3
    assert interval_of(np.array([noise, noise, noise, 0.5]), 0.5).low == 0 < noise


def test_a_file_holds_rounded_numbers_and_null_for_what_cannot_be_had() -> None:
    nan = float("nan")
    values = {"a": Interval(nan, nan, nan), "b": Interval(1 / 3, nan, 0.5), "p": nan, "n": 3}
    assert as_json({"cell": values}) == {
        "cell": {"a": None, "b": {"estimate": 0.333333, "low": None, "high": 0.5}}
        | {"p": None, "n": 3}
    }


def test_a_centred_interval_lies_around_its_estimate() -> None:
    draws = np.random.default_rng(0).normal(3, 1, 4000)
    found = interval_of(np.append(1.0, draws), 0.95, centred=True)
    assert found.low == pytest.approx(1 - 1.96, abs=0.1)
    assert found.high == pytest.approx(1 + 1.96, abs=0.1)
