"""Controls: paired differences between runs of several studies, each telling one cause from others.

A study varies one thing against another, such as the labels of cross-entropy. Its runs answered
the same questions, so that two runs of two studies are paired as two of one study are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regrow.compare.answers import Answers
from regrow.compare.bootstrap import Array, as_json, mean_interval, resample
from regrow.compare.significance import holm, paired_test, verdict
from regrow.evaluate.predictions import Predictions, read_predictions
from regrow.support.errors import UserError
from regrow.support.files import read_yaml, rounded
from regrow.support.schema import Compare


class Section(BaseModel):
    """Unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Arm(Section):
    """Runs of one study that are averaged: the same model with each of several seeds."""

    study: str
    runs: list[str] = Field(min_length=1)


class Contrast(Section):
    """A question, and the two arms whose difference answers it: accuracy of `arm` - `other`."""

    question: str
    arm: str
    other: str


class Controls(Section):
    """All of a controls file."""

    arms: dict[str, Arm] = Field(min_length=1)
    contrasts: list[Contrast]


@dataclass(frozen=True)
class Tested:
    """An arm's test answers.

    right: 1 where the model is right, [seeds, questions].
    nll: of the gold choice, nats, [seeds, questions].
    retention: parameters of the model / parameters of the teacher.
    """

    right: Array
    nll: Array
    retention: float


def read_controls(path: Path) -> Controls:
    """Read a controls file; every fault is a `UserError` that names the file and the key."""
    values = read_yaml(path, "put it right")
    try:
        controls = Controls.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}"
            for fault in error.errors()
        )
        raise UserError(f"{path}: {faults}") from None
    for contrast in controls.contrasts:
        for name in (contrast.arm, contrast.other):
            if name not in controls.arms:
                known = ", ".join(controls.arms)
                raise UserError(
                    f"{path}: contrasts names the arm {name!r}, but arms holds only {known}"
                )
    return controls


def read_answers(results: Path, controls: Controls, settings: Compare) -> dict[str, Tested]:
    """Every arm's answers to the test questions, from `results/STUDY/predictions`.

    Raises `UserError` where two runs answered other questions.
    """
    first: Predictions | None = None
    answers = {}
    for name, arm in controls.arms.items():
        folder = results / arm.study / "predictions"
        teacher = read_predictions(folder / "teacher.parquet")
        runs = [read_predictions(folder / f"{run}.parquet").of_split("test") for run in arm.runs]
        first = first or runs[0]
        for run_name, run in zip(arm.runs, runs, strict=True):
            for part in ("ids", "answers", "characters"):
                if getattr(run, part) != getattr(first, part):
                    raise UserError(
                        f"{folder / run_name}.parquet answers questions that differ in {part} from "
                        f"those of {next(iter(controls.arms))}; studies that are compared must "
                        "have the same data section"
                    )
        each = [Answers.of(run, settings.accuracy) for run in runs]
        answers[name] = Tested(
            right=np.stack([one.hits for one in each]),
            nll=np.stack([one.nll for one in each]),
            retention=runs[0].parameters / teacher.parameters,
        )
    return answers


def controls_json(
    controls: Controls, answers: Mapping[str, Tested], settings: Compare
) -> dict[str, Any]:
    """Each arm's accuracy and NLL, and each contrast's paired difference, with intervals.

    `p` is McNemar's exact one (two-sided), `holm_p` adjusted for all contrasts; null where it
    cannot be had. `verdict` is that of the accuracy at the margin `compare.margin`, superior only
    where it holds among all contrasts.
    """
    contrasts = [_contrast(contrast, answers, settings) for contrast in controls.contrasts]
    adjusted = holm([contrast["p"] for contrast in contrasts])
    for contrast, holm_p in zip(contrasts, adjusted, strict=True):
        contrast["holm_p"] = None if holm_p is None else rounded(holm_p)
        if contrast["verdict"] == "superior" and (
            holm_p is None or holm_p >= 1 - settings.confidence
        ):
            contrast["verdict"] = "non-inferior"
    questions = next(iter(answers.values())).right.shape[1]
    return {
        "questions": questions,
        "accuracy": settings.accuracy,
        "confidence": settings.confidence,
        "margin": settings.margin,
        "arms": {
            name: {
                "study": controls.arms[name].study,
                "runs": controls.arms[name].runs,
                "retention": rounded(found.retention),
                "accuracy": _interval(found.right, settings, (0, 1)),
                "nll": _interval(found.nll, settings),
            }
            for name, found in answers.items()
        },
        "contrasts": contrasts,
    }


def _contrast(
    contrast: Contrast, answers: Mapping[str, Tested], settings: Compare
) -> dict[str, Any]:
    arm, other = answers[contrast.arm], answers[contrast.other]
    if arm.right.shape != other.right.shape:
        raise UserError(
            f"{contrast.arm} and {contrast.other} have {len(arm.right)} and {len(other.right)} "
            "runs; a paired difference takes as many of each"
        )
    gap = arm.right - other.right
    draws = resample(gap.shape[1], len(gap), settings.resamples, settings.seed)
    found = mean_interval(gap, draws, settings.confidence, (-1, 1))
    p = paired_test(arm.right, other.right).p
    return {
        "question": contrast.question,
        "arm": contrast.arm,
        "other": contrast.other,
        "accuracy": as_json(found),
        "nll": _interval(arm.nll - other.nll, settings),
        "p": None if p is None else rounded(p),
        "verdict": verdict(found, settings.margin),
    }


def _interval(values: Array, settings: Compare, bounds: tuple[float, float] | None = None) -> Any:
    draws = resample(values.shape[1], len(values), settings.resamples, settings.seed)
    return as_json(mean_interval(values, draws, settings.confidence, bounds))


def as_markdown(found: Mapping[str, Any]) -> str:
    """The arms and the contrasts as two Markdown tables."""
    lines = ["| Arm | Accuracy, % | NLL, nats |", "|---|---|---|"]
    lines += [
        f"| {name} | {_text(arm['accuracy'], 100, 1)} | {_text(arm['nll'], 1, 2)} |"
        for name, arm in found["arms"].items()
    ]
    lines += [
        "",
        "| Question | Difference | Accuracy, points | NLL, nats | p (Holm) | Verdict |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {contrast['question']} | {contrast['arm']} - {contrast['other']} "
        f"| {_text(contrast['accuracy'], 100, 1, '+')} | {_text(contrast['nll'], 1, 2, '+')} "
        f"| {_p(contrast['p'])} ({_p(contrast['holm_p'])}) | {contrast['verdict']} |"
        for contrast in found["contrasts"]
    ]
    return "\n".join(lines)


def _text(
    ends: Mapping[str, float | None] | None, scale: float, digits: int, sign: str = ""
) -> str:
    if ends is None or ends["estimate"] is None:
        return "cannot say"
    number, *rest = (
        None if ends[name] is None else f"{scale * float(ends[name] or 0):{sign}.{digits}f}"
        for name in ("estimate", "low", "high")
    )
    return f"{number} [{', '.join(map(str, rest))}]" if None not in rest else f"{number}"


def _p(value: float | None) -> str:
    return "cannot say" if value is None else f"{value:.2g}"
