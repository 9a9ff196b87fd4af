"""One model's answers as arrays, on the scores that decide between the choices, and its draws."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import entr, log_softmax

from regrow.compare.bootstrap import Array, Counts, Resamples, Sample, interval_of, mean_sample
from regrow.evaluate.accuracy import chosen, log_distribution
from regrow.evaluate.predictions import Predictions
from regrow.evaluate.ranking import Normalisation

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Answers:
    """A model's answers to n questions.

    logs: the log-distribution over the choices, nats, (n, most choices), -inf for missing ones.
    gold, chosen: each question's gold choice, and the one that the model ranks first: (n,). Both
    its accuracy and its confidence are those of the chosen one.
    """

    logs: Array
    gold: Index
    chosen: Index

    @classmethod
    def of(cls, predictions: Predictions, normalisation: Normalisation) -> "Answers":
        """The distribution is the softmax of the scores that decide under `normalisation`."""
        return cls(
            log_distribution(predictions, normalisation),
            np.asarray(predictions.answers, dtype=np.intp),
            chosen(predictions, normalisation),
        )

    def __len__(self) -> int:
        return len(self.gold)

    @cached_property
    def probabilities(self) -> Array:
        """(n, most choices); 0 for missing ones."""
        return np.exp(self.logs)

    @cached_property
    def hits(self) -> Array:
        """1 where the chosen choice is the gold one, 0 elsewhere: (n,)."""
        return np.where(self.chosen == self.gold, 1.0, 0.0)

    @cached_property
    def confidence(self) -> Array:
        """The probability of the chosen choice: (n,)."""
        return np.asarray(self.probabilities[np.arange(len(self)), self.chosen])

    @cached_property
    def nll(self) -> Array:
        """Minus the log-probability of the gold choice, nats: (n,)."""
        return np.asarray(-self.logs[np.arange(len(self)), self.gold])

    @cached_property
    def brier(self) -> Array:
        """Each question's sum over choices of (probability - gold)^2, from 0 to 2: (n,).

        Brier 1950, "Verification of forecasts expressed in terms of probability", Monthly Weather
        Review 78(1), in its original form for several classes.
        """
        gold = np.zeros_like(self.probabilities)
        gold[np.arange(len(self)), self.gold] = 1
        return np.asarray(((self.probabilities - gold) ** 2).sum(axis=1))

    @cached_property
    def entropy(self) -> Array:
        """The Shannon entropy of each question's distribution, nats: (n,)."""
        return np.asarray(entr(self.probabilities).sum(axis=1))

    @cached_property
    def log_choices(self) -> Array:
        """The NLL of one who knows nothing, ln(number of choices): (n,)."""
        return np.asarray(np.log(np.isfinite(self.logs).sum(axis=1)))

    def kl_from(self, teacher: "Answers") -> Array:
        """KL(teacher's distribution over the choices || this one), nats: (n,).

        Kullback and Leibler 1951, "On information and sufficiency".
        """
        # From logarithms: a probability may round to 0 where its logarithm is finite.
        present = np.isfinite(teacher.logs)
        gap = np.where(present, teacher.logs, 0) - np.where(present, self.logs, 0)
        return np.asarray((teacher.probabilities * gap).sum(axis=1))

    def at(self, temperature: float) -> "Answers":
        """The same scores over a temperature, which may be infinite: no choice is moved."""
        present = np.isfinite(self.logs)
        scores = np.where(present, np.where(present, self.logs, 0) / temperature, -np.inf)
        return replace(self, logs=np.asarray(log_softmax(scores, axis=1)))


def fitted_temperature(answers: Answers) -> float | None:
    """The temperature at which these questions' gold choices have the lowest mean NLL.

    Temperature scaling: Guo et al. 2017, "On calibration of modern neural networks", ICML. The NLL
    is convex in 1 / temperature, so that its slope, the mean over questions of the expected less
    the gold choice's score, has at most one root. Where it has none scaling degenerates: infinite,
    where the scores say nothing of the gold choice; 0, where every gold choice is ranked first.
    None without questions.

    scikit-learn's `CalibratedClassifierCV(method="temperature")` finds the same, but bounds it by
    e^-10 and e^10 and takes one number of choices for all questions.
    """
    if not len(answers):
        return None
    present = np.isfinite(answers.logs)
    scores = np.where(present, answers.logs - answers.logs.max(axis=1, keepdims=True), 0)
    gold = scores[np.arange(len(answers)), answers.gold].mean()

    def slope(inverse: float) -> float:
        weights = np.where(present, np.exp(inverse * scores), 0)
        means = (weights * scores).sum(axis=1) / weights.sum(axis=1)
        return float(means.mean() - gold)

    if gold == 0:
        return 0.0
    if slope(0) >= 0:
        return float("inf")
    high = 1.0
    while slope(high) < 0:
        high *= 2
    return float(1 / brentq(slope, 0, high, xtol=1e-14, rtol=1e-12))


@dataclass(frozen=True)
class Model:
    """One model's answers, and what its measures stand on.

    test, held: its answers to the test and the calibration questions.
    draws: of test questions and seeds. held_draws: of calibration questions, independent of
    those; the first alone takes them as they are.
    teacher, pruned: those that it is measured by; a model has no teacher if it is the teacher, and
    no pruned one unless it is a student.
    raw: the same on summed log-probabilities, where accuracy is decided by another rule.
    """

    test: Answers
    held: Answers
    draws: Resamples
    held_draws: Counts
    confidence: float
    teacher: "Model | None" = None
    pruned: "Model | None" = None
    raw: "Model | None" = None

    @cached_property
    def temperature(self) -> float | None:
        """The one that fits the calibration questions; see `fitted_temperature`."""
        return fitted_temperature(self.held)

    @cached_property
    def scaled(self) -> Answers | None:
        """The test answers at that temperature; None where there is none or it is 0.

        The temperature is fitted once: its own noise, that of one number, is not in the draws.
        """
        return self.test.at(self.temperature) if self.temperature else None

    def mean(self, values: Array) -> Sample:
        """The mean of values of test questions, one a question."""
        return mean_sample(values[None], self.draws)

    def ratio(self, values: Array, weights: Array) -> Sample:
        """The mean of `values` weighted by `weights`; NaN where these are all 0."""
        with np.errstate(invalid="ignore"):
            return self.mean(values * weights) / self.mean(weights)

    def share(self, part: Sample, whole: Sample) -> Sample:
        """`part` over `whole`, which has an interval only where that of `whole` lies above 0.

        A ratio has no useful interval where its denominator may be zero (Fieller 1954, Journal of
        the Royal Statistical Society B 16).
        """
        there = whole > 0
        if not interval_of(whole, self.confidence).low > 0:
            there[1:] = False
        return np.divide(part, whole, out=self.missing, where=there)

    @property
    def missing(self) -> Sample:
        """What the data cannot give."""
        return np.full(len(self.draws.questions), np.nan)
