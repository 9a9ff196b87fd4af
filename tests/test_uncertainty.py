"""Uncertainty figures: against scikit-learn, MAPIE and plain loops; properties; coverage."""

import dataclasses
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from regrow.compare.answers import Answers, fitted_temperature
from regrow.compare.bootstrap import Array
from regrow.compare.uncertainty import (
    SCORES,
    calibration_error,
    conformal_scores,
    conformal_sets,
    conformal_thresholds,
    gold_scores,
    reliability,
    risk_by_coverage,
    selective_risk,
)
from regrow.evaluate.predictions import Predictions
from simulated import simulated_study, sweep_of

SWEEP = sweep_of(sparsity=(0.3,))


def study(test: int = 90, choices: tuple[int, ...] = (5,), seed: int = 0) -> dict[str, Predictions]:
    return simulated_study(SWEEP, test=test, calibration=60, choices=choices, seed=seed)


def raw(run: Predictions) -> Answers:
    return Answers.of(run, "raw")


def aurc(levels: Array, hits: Array, counts: Any = None) -> Array:
    return selective_risk(levels, hits, 0.5, counts)[0]


def run_of(test: int = 90, choices: tuple[int, ...] = (5,), seed: int = 0) -> Predictions:
    return study(test, choices, seed)["finetune/l2-0.3-600-0"].of_split("test")


@st.composite
def graded(draw: st.DrawFn) -> tuple[Array, Array]:
    """Confidences, ties among them likely, and hits."""
    size = draw(st.integers(1, 40))
    level = st.one_of(st.sampled_from([0.2, 0.5, 0.8]), st.floats(0.2, 1))
    levels = draw(st.lists(level, min_size=size, max_size=size))
    hits = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return np.array(levels), np.where(hits, 1.0, 0.0)


def test_nll_and_brier_equal_scikit_learns() -> None:
    run = raw(run_of())
    assert run.nll.mean() == pytest.approx(
        log_loss(run.gold, run.probabilities, labels=range(5)), abs=1e-9
    )
    assert run.brier.mean() == pytest.approx(
        brier_score_loss(run.gold, run.probabilities, labels=range(5), scale_by_half=False),
        abs=1e-9,
    )


def test_entropy_and_kl_equal_plain_loops_for_unequal_questions() -> None:
    runs = study(choices=(2, 5, 3))
    teacher, student = (runs[name].of_split("test") for name in ("teacher", "distill/l2-0.3-600-0"))

    def softmax(row: Any) -> list[float]:
        total = math.fsum(math.exp(value - max(row)) for value in row)
        return [math.exp(value - max(row)) / total for value in row]

    for index, (ours, theirs) in enumerate(zip(student.log_probs, teacher.log_probs, strict=True)):
        p, q = softmax(theirs), softmax(ours)
        assert raw(student).entropy[index] == pytest.approx(-sum(v * math.log(v) for v in q))
        assert raw(student).kl_from(raw(teacher))[index] == pytest.approx(
            sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)), abs=1e-9
        )
    assert raw(teacher).kl_from(raw(teacher)) == pytest.approx(0)


def test_kl_is_finite_where_probabilities_underflow() -> None:
    run = run_of(test=2)
    far = dataclasses.replace(run, log_probs=[[0.0, *[-2000.0] * 4]] * 2)
    back = dataclasses.replace(run, log_probs=[[*[-2000.0] * 4, 0.0]] * 2)
    assert raw(back).kl_from(raw(far)) == pytest.approx(2000)
    assert np.isfinite(raw(far).brier).all() and np.isfinite(raw(far).entropy).all()


def test_calibration_error_equals_a_plain_loop_and_scikit_learns_curve() -> None:
    run = raw(run_of(test=90))
    levels, hits = run.confidence, run.hits
    order = np.argsort(levels)
    loop = sum(
        abs(hits[part].mean() - levels[part].mean()) * len(part) / 90
        for part in np.array_split(order, 15)
    )
    assert calibration_error(levels, hits, 15)[0] == pytest.approx(loop, abs=1e-12)
    seen, meant = calibration_curve(hits, levels, n_bins=15, strategy="quantile")
    mean_level, mean_hit, mass = reliability(levels, hits, 15)
    assert mean_level == pytest.approx(meant, abs=1e-9)
    assert mean_hit == pytest.approx(seen, abs=1e-9)
    assert mass == pytest.approx(6)
    assert (np.abs(mean_level - mean_hit) * mass).sum() / 90 == pytest.approx(loop)


def test_risk_by_coverage_equals_a_plain_loop() -> None:
    run = raw(run_of())
    levels, hits = run.confidence, run.hits
    order = np.argsort(-levels)
    loop = [1 - hits[order[:taken]].mean() for taken in range(1, 91)]
    assert risk_by_coverage(levels, hits)[0] == pytest.approx(loop)
    area, height = selective_risk(levels, hits, 0.8)
    assert area[0] == pytest.approx(np.mean(loop))
    assert height[0] == pytest.approx(loop[71])


@given(graded(), st.integers(1, 20))
@settings(deadline=None)
def test_bounds_and_the_order_of_questions(sample: tuple[Array, Array], bins: int) -> None:
    levels, hits = sample
    found = calibration_error(levels, hits, bins)[0], aurc(levels, hits)[0]
    assert all(0 <= value <= 1 + 1e-12 for value in found)
    assert risk_by_coverage(levels, hits)[0, -1] == pytest.approx(1 - hits.mean())
    # The finest bins see the most; one bin sees only the overall gap.
    assert calibration_error(levels, hits, 1)[0] == pytest.approx(abs(hits.mean() - levels.mean()))
    order = np.random.default_rng(0).permutation(len(levels))
    assert calibration_error(levels[order], hits[order], bins)[0] == pytest.approx(found[0])
    assert aurc(levels[order], hits[order])[0] == pytest.approx(found[1])
    mean_level, mean_hit, mass = reliability(levels, hits, bins)
    assert mass.sum() == len(levels)
    assert (mean_level * mass).sum() == pytest.approx(levels.sum())
    assert (mean_hit * mass).sum() == pytest.approx(hits.sum())


@given(graded(), st.integers(1, 20), st.data())
@settings(deadline=None)
def test_counts_equal_the_questions_taken_that_often(
    sample: tuple[Array, Array], bins: int, data: st.DataObject
) -> None:
    levels, hits = sample
    size = len(levels)
    taken = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=size, max_size=size)))
    counts = np.bincount(taken, minlength=size)[None]
    assert calibration_error(levels, hits, bins, counts)[0] == pytest.approx(
        calibration_error(levels[taken], hits[taken], bins)[0]
    )
    assert aurc(levels, hits, counts)[0] == pytest.approx(aurc(levels[taken], hits[taken])[0])


def test_equal_confidences_are_one_bin_in_expectation() -> None:
    hits = np.array([1.0] * 20 + [0.0] * 80)
    assert calibration_error(np.full(100, 0.2), hits, 10)[0] == pytest.approx(0)
    assert aurc(np.full(100, 0.2), hits)[0] == pytest.approx(0.8)


def test_confidences_equal_but_for_rounding_are_ties() -> None:
    hits = np.array([1.0, 0.0])
    for beyond, risk in ((0.0, 0.5), (4e-13, 0.5), (2e-12, 1.0)):
        assert risk_by_coverage(np.array([0.5, 0.5 + beyond]), hits)[0, 0] == risk, beyond


def test_at_no_coverage_the_most_confident_answer_counts() -> None:
    levels, hits = np.array([0.3, 0.9, 0.5]), np.array([1.0, 0.0, 1.0])
    assert selective_risk(levels, hits, 0.01)[1][0] == 1
    assert selective_risk(levels, hits, 0.6)[1][0] == 0.5
    assert selective_risk(levels, hits, 1.0)[1][0] == pytest.approx(1 / 3)


def test_chunks_of_draws_change_nothing_and_bound_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    levels, hits = rng.random(200), np.where(rng.random(200) < 0.5, 1.0, 0.0)
    counts = rng.multinomial(200, np.full(200, 1 / 200), 2000).astype(np.uint16)
    whole = calibration_error(levels, hits, 10, counts)
    for chunk in (1, 5000):
        monkeypatch.setattr("regrow.compare.bootstrap.CHUNK", chunk)
        assert calibration_error(levels, hits, 10, counts[:50]) == pytest.approx(whole[:50])
    tracemalloc.start()
    try:
        assert calibration_error(levels, hits, 10, counts) == pytest.approx(whole)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # All draws at once, as numbers of 8 bytes, would take 3.2 MB in each of several arrays.
    assert peak < 2_000_000


@given(st.integers(-64, 64), st.integers(0, 5))
@settings(deadline=None, max_examples=20)
def test_a_constant_on_all_choices_of_a_question_changes_nothing(constant: int, seed: int) -> None:
    run = run_of(test=12, choices=(2, 5, 3), seed=seed)
    coarse = [[round(value * 64) / 64 for value in row] for row in run.log_probs]
    before = dataclasses.replace(run, log_probs=coarse)
    after = dataclasses.replace(run, log_probs=[[v + constant for v in row] for row in coarse])
    for name in ("brier", "entropy", "confidence", "nll", "hits"):
        assert getattr(raw(after), name) == pytest.approx(getattr(raw(before), name))
    assert raw(after).kl_from(raw(before)) == pytest.approx(0, abs=1e-9)
    figures = [
        (
            calibration_error(raw(part).confidence, raw(part).hits, 4)[0],
            aurc(raw(part).confidence, raw(part).hits)[0],
            *(value for score in SCORES for value in sets(part, part, score, 0.2)),
        )
        for part in (before, after)
    ]
    assert figures[1] == pytest.approx(figures[0])


def sets(
    calibration: Predictions, test: Predictions, score: Any, alpha: float
) -> tuple[float, float]:
    kept, asked = raw(calibration), raw(test)
    held = gold_scores(kept, conformal_scores(kept, score))
    scores = conformal_scores(asked, score)
    covered, size = conformal_sets(
        scores, gold_scores(asked, scores), conformal_thresholds(held, alpha)
    )
    return float(covered[0]), float(size[0])


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
def test_sets_equal_mapies(alpha: float) -> None:
    classification = pytest.importorskip("mapie.classification")
    aps = pytest.importorskip("mapie.conformity_scores.sets.aps")
    whole = study()["distill/l2-0.3-600-0"]
    calibration, test = whole.of_split("calibration"), whole.of_split("test")

    class Known:
        """A fitted classifier whose input is its output."""

        classes_ = np.arange(5)
        _estimator_type = "classifier"

        def fit(self, x: Array, y: Array) -> "Known":
            return self

        def predict(self, x: Array) -> Array:
            return x.argmax(axis=1)

        def predict_proba(self, x: Array) -> Array:
            return x

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def __sklearn_tags__(self) -> Any:
            from sklearn.dummy import DummyClassifier

            return DummyClassifier().__sklearn_tags__()

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            return {}

    theirs = classification.SplitConformalClassifier(
        Known(), confidence_level=1 - alpha, conformity_score="lac", prefit=True
    )
    theirs.conformalize(raw(calibration).probabilities, np.array(calibration.answers))
    member = theirs.predict_set(raw(test).probabilities)[1][:, :, 0]
    covered, size = sets(calibration, test, "lac", alpha)
    assert size == pytest.approx(member.sum(axis=1).mean())
    assert covered == pytest.approx(member[np.arange(90), test.answers].mean())

    cumulated, _ = aps.APSConformityScore.get_true_label_cumsum_proba(
        np.array(test.answers), raw(test).probabilities, np.arange(5)
    )
    ours = gold_scores(raw(test), conformal_scores(raw(test), "aps"))
    assert ours == pytest.approx(cumulated[:, 0])


@pytest.mark.parametrize("score", SCORES)
def test_thresholds_of_draws_equal_those_of_the_questions_taken(score: Any) -> None:
    whole = study(choices=(2, 5, 3))["distill/l2-0.3-600-0"]
    calibration, test = raw(whole.of_split("calibration")), raw(whole.of_split("test"))
    held = gold_scores(calibration, conformal_scores(calibration, score))
    scores = conformal_scores(test, score)
    gold = gold_scores(test, scores)
    rng = np.random.default_rng(0)
    taken, asked = rng.integers(0, 60, (7, 60)), rng.integers(0, 90, (7, 90))
    counts, test_counts = (
        np.stack([np.bincount(row, minlength=size) for row in rows])
        for rows, size in ((taken, 60), (asked, 90))
    )
    thresholds = conformal_thresholds(held, 0.1, counts)
    covered, size = conformal_sets(scores, gold, thresholds, test_counts)
    for draw in range(7):
        threshold = conformal_thresholds(held[taken[draw]], 0.1)
        assert thresholds[draw] == threshold[0]
        rows = asked[draw]
        assert covered[draw] == pytest.approx((gold[rows] <= threshold[0]).mean())
        assert size[draw] == pytest.approx((scores[rows] <= threshold[0]).sum(axis=1).mean())


def test_few_calibration_questions_give_sets_of_all_choices() -> None:
    whole = study(choices=(2, 5, 3))["distill/l2-0.3-600-0"]
    test = whole.of_split("test")
    few = Predictions(
        *(getattr(whole.of_split("calibration"), field.name)[:8] for field in FIELDS), 1, 1
    )
    covered, size = sets(few, test, "lac", 0.1)
    assert covered == 1
    assert size == pytest.approx(np.mean([len(row) for row in test.log_probs]))


FIELDS = dataclasses.fields(Predictions)[:6]


def test_a_threshold_is_the_smallest_score_that_is_enough() -> None:
    scores = np.array([0.7, 0.1, 0.9, 0.2, 0.8, 0.3, 0.4, 0.6, 0.5])
    # The ninth, a tenth that is not there, the eighth and the fifth.
    for alpha, expected in ((0.1, 0.9), (0.09, np.inf), (0.2, 0.8), (0.5, 0.5)):
        assert conformal_thresholds(scores, alpha)[0] == expected, alpha
    # Of a draw that takes the lowest score nine times.
    only = np.where(scores == 0.1, 9, 0)[None]
    assert conformal_thresholds(scores, 0.1, only).tolist() == [0.1]
    assert conformal_thresholds(scores, 0.05, np.repeat(only, 3, 0)).tolist() == [np.inf] * 3


def test_conformal_scores_by_hand_with_ties_and_missing_choices() -> None:
    run = dataclasses.replace(
        run_of(test=2, choices=(3, 2)),
        log_probs=[[math.log(p) for p in row] for row in ((0.25, 0.5, 0.25), (0.5, 0.5))],
    )
    assert conformal_scores(raw(run), "lac").tolist() == [[0.75, 0.5, 0.75], [0.5, 0.5, np.inf]]
    assert conformal_scores(raw(run), "aps").tolist() == [[1.0, 0.5, 1.0], [1.0, 1.0, np.inf]]


@pytest.mark.parametrize("score", SCORES)
def test_coverage_is_at_least_what_was_asked_for(score: Any) -> None:
    """Over 60 simulated studies: 1 - alpha or more, and for LAC no more than 1 / (n + 1) above.

    The Monte-Carlo error of the mean over the studies is about 0.7 points.
    """
    covered = []
    for seed in range(60):
        whole = study(seed=seed)["distill/l2-0.3-600-0"]
        covered.append(sets(whole.of_split("calibration"), whole.of_split("test"), score, 0.2)[0])
    assert np.mean(covered) > 0.8 - 0.02
    if score == "lac":
        assert np.mean(covered) < 0.8 + 1 / 61 + 0.02


@pytest.mark.parametrize("factor", [0.2, 1.0, 30.0, 1e4])
def test_the_fitted_temperature_is_the_best_and_scales_with_the_scores(factor: float) -> None:
    run = raw(run_of(choices=(2, 5, 3)))
    best = fitted_temperature(run)
    assert best
    assert fitted_temperature(run.at(1 / factor)) == pytest.approx(factor * best, rel=1e-6)
    losses = [run.at(best * step).nll.mean() for step in (0.98, 1, 1.02)]
    assert losses[1] == min(losses)
    assert (run.at(best).hits == run.hits).all()


def test_the_fitted_temperature_is_scikit_learns() -> None:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Known(ClassifierMixin, BaseEstimator):
        """A fitted classifier whose input is its decision."""

        def fit(self, x: Array, y: Array) -> "Known":
            self.classes_ = np.arange(5)
            return self

        def decision_function(self, x: Array) -> Array:
            return x

        def predict(self, x: Array) -> Array:
            return x.argmax(axis=1)

    run = raw(run_of())
    theirs = CalibratedClassifierCV(
        FrozenEstimator(Known().fit(run.logs, run.gold)), method="temperature"
    )
    theirs.fit(run.logs, run.gold)
    scaled = run.at(fitted_temperature(run) or 1.0)
    assert theirs.predict_proba(run.logs) == pytest.approx(scaled.probabilities, abs=1e-5)


def test_where_scaling_degenerates_it_says_so_and_is_never_capped() -> None:
    run = run_of(test=6)
    sure, wrong = (
        raw(
            dataclasses.replace(
                run,
                log_probs=[
                    [sign * float(place != gold) for place in range(5)] for gold in run.answers
                ],
            )
        )
        for sign in (-1, 1)
    )
    assert fitted_temperature(sure) == 0
    assert fitted_temperature(wrong) == float("inf")
    # Uniform, and not worse: what the scores rank first stays first.
    assert wrong.at(float("inf")).nll == pytest.approx(math.log(5))
    assert (wrong.at(float("inf")).hits == wrong.hits).all()
    assert fitted_temperature(raw(run.of_split("calibration"))) is None
