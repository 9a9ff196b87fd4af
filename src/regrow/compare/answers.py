"""One model's answers as arrays, on the scores that decide between the choices."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import entr, log_softmax

from regrow.compare.bootstrap import Array
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

    Temperature scaling: Guo et al. 2017, "On calibration of modern neural networks", ICML. To be
    fitted on calibration questions and used on others. The NLL is convex in 1 / temperature, so
    that its slope, the mean over questions of the expected less the gold choice's score, has one
    root, and no bound is needed to find it. Where it has none scaling degenerates: infinite, where
    the scores say nothing of the gold choice, and the scaled model is uniform; 0, where every gold
    choice is ranked first, and no finite temperature is the best. None without questions.

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
