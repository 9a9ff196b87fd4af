"""Accuracy at the bytes of the device: what lies on the frontier, and what follows of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from regrow.compare.bootstrap import UNKNOWN, Array, Interval, mean_interval
from regrow.compare.significance import holm, paired_test, verdict
from regrow.compare.study import LOSSES
from regrow.device.files import EXACT, File
from regrow.evaluate.accuracy import chance, longest_choice
from regrow.evaluate.predictions import Predictions
from regrow.support.files import as_json, rounded
from regrow.support.schema import Compare

EQUAL = 0.05  # files whose bytes differ by no more are of equal size


@dataclass(frozen=True)
class Contrast:
    """One question and what the data say; `one` - `other`, each a file or a pair of them.

    kind: which question. measure: of what the difference is. p: exact and two-sided for what is
    right or wrong, of a t-test over questions for the rest. verdict: by whether p is clear.
    """

    kind: str
    measure: str
    one: str
    other: str
    difference: Interval
    p: float
    verdict: Callable[[bool], str]


def pareto(points: Mapping[str, tuple[float, float]]) -> set[str]:
    """The names of (cost, accuracy) that no other one beats: as cheap and better, or cheaper."""
    return {
        name
        for name, (cost, value) in points.items()
        if not any(
            (c <= cost and v >= value) and (c, v) != (cost, value) for c, v in points.values()
        )
    }


class Judge:
    """Files of one study against each other, on the same draws of questions and seeds."""

    def __init__(self, files: Mapping[str, File], floor: float, settings: Compare) -> None:
        """floor: the accuracy of choosing the longest choice."""
        self.files, self.floor, self.settings = files, floor, settings
        self.without_teacher: list[str] = []  # students that no format of it is as small as

    def interval(self, values: Array, bounds: tuple[float, float] | None = None) -> Interval:
        """The mean of (seeds, questions) with its interval; NaN where it cannot be had."""
        if not np.isfinite(values).all():
            return UNKNOWN
        return mean_interval(values, self.settings, bounds)

    def accuracy(self, file: File) -> Interval:
        """A file's accuracy."""
        return self.interval(file.hits, (0, 1))

    def verdicts(self) -> list[dict[str, Any]]:
        """All questions, corrected over all of them (Holm)."""
        found = [*self._losses(), *self._survives(), *self._at_equal_bytes()]
        said = []
        for one, p in zip(found, holm([one.p for one in found]), strict=True):
            numbers = vars(one) | {"holm_p": float(p)}
            judged = numbers.pop("verdict")(p < 1 - self.settings.confidence)
            said.append(as_json(numbers | {"verdict": judged}))
        return said

    def _pairs(self) -> Iterator[tuple[File, File]]:
        """KL and CE of each cell and format."""
        for file in self.files.values():
            if file.method == "distill":
                other = self.files.get(file.name.replace("distill", "finetune", 1))
                if other is not None:
                    yield file, other

    def _losses(self) -> Iterator[Contrast]:
        """KL - CE in each format: accuracy, scaled NLL, size of sets, agreement with F32."""
        for kl, ce in self._pairs():
            names = kl.name, ce.name
            yield self._of_hits("loss", *names, kl.hits, ce.hits, kl, ce)
            yield self._of_values("loss", "nll_scaled", *names, kl.nll - ce.nll)
            yield self._of_values("loss", "lac_size", *names, kl.sets - ce.sets)
            if kl.form != EXACT:
                gap = self.interval(kl.same - ce.same, (-1, 1))
                p = paired_test(kl.same, ce.same).p
                yield Contrast("loss", "agreement", *names, gap, p, partial(verdict, gap, 0))

    def _survives(self) -> Iterator[Contrast]:
        """The change of KL's lead from F32 to each format."""
        pairs = {(kl.cell, kl.form): (kl, ce) for kl, ce in self._pairs()}
        for (cell, form), (kl, ce) in pairs.items():
            before = pairs.get((cell, EXACT))
            if form == EXACT or before is None:
                continue
            now, then = kl.hits - ce.hits, before[0].hits - before[1].hits
            names = f"{kl.name} - {ce.name}", f"{before[0].name} - {before[1].name}"
            yield self._of_hits("lead", *names, now, then, kl, ce)

    def _at_equal_bytes(self) -> Iterator[Contrast]:
        """Each quantised student against the teacher at its bytes."""
        teachers = [file for file in self.files.values() if file.method == "teacher"]
        teachers.sort(key=lambda file: file.bytes)
        for file in self.files.values():
            if file.method not in LOSSES or file.form == EXACT or not teachers:
                continue
            nearest = min(teachers, key=lambda one: abs(one.bytes / file.bytes - 1))
            if abs(nearest.bytes / file.bytes - 1) <= EQUAL:
                hits = np.broadcast_to(nearest.hits, file.hits.shape)
                names = file.name, nearest.name
                yield self._of_hits("bytes", *names, file.hits, hits, file, nearest)
                continue
            below = [one for one in teachers if one.bytes < file.bytes]
            above = [one for one in teachers if one.bytes > file.bytes]
            if below and above:
                yield self._between(file, below[-1], above[0])
            else:
                self.without_teacher.append(file.name)

    def _between(self, file: File, low: File, high: File) -> Contrast:
        """A student against the teacher at bytes where there is none: between two of its formats.

        The estimate interpolates the teacher's accuracy over bytes. What a format of that size
        would have is not known, but that it lies between the two: the interval reaches over those
        against either, and p is the larger one (an intersection-union test).
        """
        share = (file.bytes - low.bytes) / (high.bytes - low.bytes)
        between = (1 - share) * low.hits + share * high.hits
        middle = self.interval(file.hits - between, (-1, 1))
        ends = [self.interval(file.hits - one.hits, (-1, 1)) for one in (low, high)]
        shape = file.hits.shape
        tests = [paired_test(file.hits, np.broadcast_to(one.hits, shape)).p for one in (low, high)]
        _, lows, highs = np.transpose([middle, *ends])
        found = Interval(middle.estimate, float(lows.min()), float(highs.max()))
        agree = ends[0].estimate * ends[1].estimate > 0
        p = max(tests) if agree else 1.0
        teacher = f"teacher between {low.form} and {high.form}"
        judged = self._judged(found, file, low, high)
        return Contrast("bytes", "accuracy", file.name, teacher, found, p, judged)

    def _of_hits(
        self, kind: str, one: str, other: str, hits: Array, others: Array, *files: File
    ) -> Contrast:
        bounds = (-2.0, 2.0) if kind == "lead" else (-1.0, 1.0)
        found = self.interval(hits - others, bounds)
        p = paired_test(hits, others).p
        return Contrast(kind, "accuracy", one, other, found, p, self._judged(found, *files))

    def _judged(self, found: Interval, *files: File) -> Callable[[bool], str]:
        """At the margin of the study; nothing where no file clearly beats the longest choice."""
        if not any(self.accuracy(file).low > self.floor for file in files):
            return lambda _: "nothing regrew"
        return partial(verdict, found, self.settings.margin)

    def _of_values(self, kind: str, measure: str, one: str, other: str, gap: Array) -> Contrast:
        """For a measure of which less is better: superior is less."""
        found = self.interval(gap)
        over = gap.mean(axis=0)
        p = float(stats.ttest_1samp(over, 0).pvalue) if np.ptp(over) > 0 else np.nan
        turned = Interval(-found.estimate, -found.high, -found.low)
        return Contrast(kind, measure, one, other, found, p, partial(verdict, turned, 0))


def frontier_json(
    files: Mapping[str, File], test: Predictions, settings: Compare
) -> dict[str, Any]:
    """Every file with its figures, which lie on the frontier over bytes, and the verdicts."""
    floor = float(longest_choice(test).mean())
    judge = Judge(files, floor, settings)
    accuracy = {name: judge.accuracy(file) for name, file in files.items()}
    verdicts = judge.verdicts()
    best = pareto({name: (file.bytes, accuracy[name].estimate) for name, file in files.items()})
    return {
        "questions": len(test),
        **settings.model_dump(include={"accuracy", "confidence", "margin"}),
        "chance": rounded(float(chance(test).mean())),
        "longest_choice": rounded(floor),
        "files": {
            name: {
                "method": file.method,
                "cell": None if file.cell is None else str(file.cell),
                "format": file.form,
                "bytes": file.bytes,
                "layout": file.layout,
                "accuracy": as_json(accuracy[name]),
                "nll_scaled": as_json(judge.interval(file.nll)),
                "lac_size": as_json(judge.interval(file.sets)),
                "agreement": as_json(judge.interval(file.same, (0, 1))),
                "pareto": name in best,
            }
            for name, file in files.items()
        },
        "without_teacher": judge.without_teacher,
        "verdicts": verdicts,
    }
