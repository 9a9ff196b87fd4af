"""Every measure of a model: one function each, with its unit and which way is better.

A measure takes a `Model` and gives a `Sample`. The first line of its docstring is its name in
words. `compare` writes whatever stands in `MEASURES`, and the report prints it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from regrow.compare import uncertainty
from regrow.compare.answers import Answers, Model
from regrow.compare.bootstrap import Sample
from regrow.support.tables import Table

BINS = 15  # of the calibration error, as in Guo et al. 2017, ICML
ALPHAS = (0.05, 0.1, 0.2)
CONFORMAL = (("coverage", "fraction", ""), ("set size", "choices", "lower"))
COVERED = 0.8  # selective accuracy is that of this share of the answers, the most confident ones

Function = Callable[..., Sample]


@dataclass(frozen=True)
class Measure:
    """What a number is, and how it is had.

    label: its name in words. unit: `fraction`, shown in percent, `nats`, `choices` or none.
    better: `higher`, `lower`, or "" where neither is. beside: the models of a `Model` (`teacher`,
    `pruned`, `raw`) that the function takes too; it says nothing of one that lacks these. bounds:
    of one question's value, where the measure is a mean over questions. centred: see
    `interval_of`. calibrated: it stands on the calibration questions too, and the draws resample
    them.
    """

    function: Function
    label: str
    unit: str
    better: str
    beside: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None
    centred: bool = False
    calibrated: bool = False

    def __call__(self, model: Model) -> Sample | None:
        """The measure of a model with its draws."""
        others = [getattr(model, name) for name in self.beside]
        if any(other is None for other in others):
            return None
        return self.function(model, *others)


class Measures(Table[Measure]):
    """Measures by name."""

    def measure(
        self, unit: str = "", better: str = "", **said: Any
    ) -> Callable[[Function], Function]:
        """Add a function under its own name, with what `Measure` says of it: a decorator."""

        def add(function: Function) -> Function:
            label = (function.__doc__ or function.__name__).splitlines()[0].rstrip(".")
            self[function.__name__] = Measure(function, label, unit, better, **said)
            return function

        return add


MEASURES = Measures()


@MEASURES.measure("fraction", "higher", bounds=(0, 1))
def accuracy(model: Model) -> Sample:
    """Accuracy."""
    return model.mean(model.test.hits)


@MEASURES.measure("nats", "lower")
def nll(model: Model) -> Sample:
    """NLL of the gold choice."""
    return _log_loss(model, model.test)


@MEASURES.measure("", "lower", bounds=(0, 2))
def brier(model: Model) -> Sample:
    """Brier score."""
    from sklearn.metrics import brier_score_loss

    test, sample = model.test, model.mean(model.test.brier)
    labels = range(test.logs.shape[1])
    sample[0] = brier_score_loss(test.gold, test.probabilities, labels=labels, scale_by_half=False)
    return sample


@MEASURES.measure("fraction", "lower", centred=True)
def ece(model: Model) -> Sample:
    """Expected calibration error."""
    return _calibration_error(model, model.test)


@MEASURES.measure("nats", "lower")
def nll_scaled(model: Model) -> Sample:
    """NLL after temperature scaling."""
    return _log_loss(model, model.scaled) if model.scaled else model.missing


@MEASURES.measure("fraction", "lower", centred=True)
def ece_scaled(model: Model) -> Sample:
    """Expected calibration error after temperature scaling."""
    return _calibration_error(model, model.scaled) if model.scaled else model.missing


@MEASURES.measure("fraction", "higher", beside=("teacher",))
def information(model: Model, teacher: Model) -> Sample:
    """Information regained, as a share of the teacher's.

    What the distribution, once scaled, says of the gold choice: ln(choices) - NLL. A uniform one
    says nothing.
    """
    if model.scaled is None or teacher.scaled is None:
        return model.missing
    both = model.scaled, teacher.scaled
    return model.share(*(model.mean(one.log_choices - one.nll) for one in both))


@MEASURES.measure("nats")
def entropy_right(model: Model) -> Sample:
    """Entropy on right answers."""
    return model.ratio(model.test.entropy, model.test.hits)


@MEASURES.measure("nats")
def entropy_wrong(model: Model) -> Sample:
    """Entropy on wrong answers."""
    return model.ratio(model.test.entropy, 1 - model.test.hits)


@MEASURES.measure("fraction", "higher")
def selective_accuracy(model: Model) -> Sample:
    """Accuracy on the surest 80 %."""
    return 1 - _selective(model, 1)


@MEASURES.measure("", "lower")
def aurc(model: Model) -> Sample:
    """Area under the risk-coverage curve."""
    return _selective(model, 0)


@MEASURES.measure("fraction", "higher", beside=("teacher",), bounds=(0, 1))
def agreement(model: Model, teacher: Model) -> Sample:
    """Agreement with the teacher's choice."""
    return model.mean(np.where(model.test.chosen == teacher.test.chosen, 1.0, 0.0))


@MEASURES.measure("nats", "lower", beside=("teacher",))
def kl(model: Model, teacher: Model) -> Sample:
    """KL from the teacher's distribution."""
    return model.mean(model.test.kl_from(teacher.test))


@MEASURES.measure("nats", "lower", beside=("teacher",))
def kl_scaled(model: Model, teacher: Model) -> Sample:
    """KL from the teacher's distribution, both after temperature scaling."""
    if model.scaled is None or teacher.scaled is None:
        return model.missing
    return model.mean(model.scaled.kl_from(teacher.scaled))


@MEASURES.measure("fraction", "higher", beside=("teacher",))
def accuracy_teacher_right(model: Model, teacher: Model) -> Sample:
    """Accuracy on questions that the teacher gets right."""
    return model.ratio(model.test.hits, teacher.test.hits)


@MEASURES.measure("fraction", "higher", beside=("teacher",))
def accuracy_teacher_wrong(model: Model, teacher: Model) -> Sample:
    """Accuracy on questions that the teacher gets wrong."""
    return model.ratio(model.test.hits, 1 - teacher.test.hits)


@MEASURES.measure("fraction", "higher", beside=("teacher", "pruned"))
def recovery(model: Model, teacher: Model, pruned: Model) -> Sample:
    """Share of the lost accuracy recovered.

    (student - pruned) / (teacher - pruned): 0 where nothing, 1 where all was recovered.
    """
    own, whole, start = (model.mean(one.test.hits) for one in (model, teacher, pruned))
    return model.share(own - start, whole - start)


def _log_loss(model: Model, answers: Answers) -> Sample:
    """scikit-learn's log loss, where it does not cut off: it takes no probability below epsilon."""
    from sklearn.metrics import log_loss

    sample = model.mean(answers.nll)
    if answers.nll.max() <= -np.log(np.finfo(np.float64).eps):
        labels = range(answers.logs.shape[1])
        sample[0] = log_loss(answers.gold, answers.probabilities, labels=labels)
    return sample


def _calibration_error(model: Model, answers: Answers) -> Sample:
    points = answers.confidence, answers.hits
    sample = uncertainty.calibration_error(*points, BINS, model.draws.questions)
    level, hit, mass = uncertainty.reliability(*points, BINS)
    sample[0] = (np.abs(hit - level) * mass).sum() / len(answers)
    return sample


def _selective(model: Model, part: int) -> Sample:
    points = model.test.confidence, model.test.hits
    return uncertainty.selective_risk(*points, COVERED, model.draws.questions)[part]


def _conformal(score: uncertainty.Score, alpha: float, part: int, model: Model) -> Sample:
    """Coverage (part 0) or mean size (1) of conformal sets."""
    if not len(model.held):
        return model.missing
    counts = model.draws.questions, model.held_draws
    return uncertainty.conformal(model.test, model.held, score, alpha, *counts)[part]


def _on_raw(function: Callable[[Model], Sample], _: Model, raw: Model) -> Sample:
    return function(raw)


for _score, _alpha in product(uncertainty.SCORES, ALPHAS):
    for _part, (_name, _unit, _better) in enumerate(CONFORMAL):
        _key = f"{_score}_{_name.removeprefix('set ')}_{_alpha}"
        _label = f"{_score.upper()} {_name} at alpha = {_alpha}"
        _function = partial(_conformal, _score, _alpha, _part)
        MEASURES[_key] = Measure(_function, _label, _unit, _better, calibrated=True)
for _name in ("accuracy", "nll", "brier", "ece", "nll_scaled", "ece_scaled", "aurc"):
    _one = MEASURES[_name]
    _label = f"{_one.label}, by summed log-probability"
    _raw = partial(_on_raw, _one.function)
    MEASURES[f"{_name}_raw"] = replace(_one, function=_raw, label=_label, beside=("raw",))
