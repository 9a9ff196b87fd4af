"""Controls: paired differences between runs of several studies, each telling one cause from others.

A study varies one thing against another, such as the labels of cross-entropy. Its runs answered
the same questions, so that two runs of two studies are paired as two of one study are.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from regrow.compare.answers import Answers
from regrow.compare.bootstrap import UNKNOWN, Array, mean_interval
from regrow.compare.significance import holm, paired_test, verdict
from regrow.compare.study import differing
from regrow.evaluate.predictions import Predictions, read_predictions
from regrow.support.errors import UserError
from regrow.support.files import as_json, read_yaml, rounded
from regrow.support.schema import Compare, Section

S = TypeVar("S", bound=Section)


class Arm(Section):
    """Runs of one study that are averaged: the same model with each of several seeds."""

    study: str
    runs: list[str] = Field(min_length=1)


class Pair(Section):
    """Two arms of as many runs."""

    arm: str
    other: str


class Contrast(Section):
    """A question, and the two arms whose difference answers it: accuracy of `arm` - `other`.

    With `less`, the difference of two other arms is taken from it: does a lead grow?
    """

    question: str
    arm: str
    other: str
    less: Pair | None = None

    @property
    def named(self) -> list[str]:
        """All arms: those that count up, and those that count down, by turns."""
        less = self.less
        return [self.arm, self.other, *((less.other, less.arm) if less else ())]


class Controls(Section):
    """All of a controls file."""

    arms: dict[str, Arm] = Field(min_length=1)
    contrasts: list[Contrast]


class Tested(NamedTuple):
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
    controls = _checked(Controls, read_yaml(path, "put it right"), path)
    for name in (name for contrast in controls.contrasts for name in contrast.named):
        if name not in controls.arms:
            known = ", ".join(controls.arms)
            raise UserError(
                f"{path}: contrasts names the arm {name!r}, but arms holds only {known}"
            )
    return controls


def read_settings(path: Path) -> Compare:
    """The section `compare` of a study's params.yaml, which may be older than today's schema.

    What this schema does not know is left out, and the cells that a study named before its run are
    not needed here.
    """
    section = read_yaml(path, "name a folder of results").get("compare")
    given = section if isinstance(section, dict) else {}
    known = {key: value for key, value in given.items() if key in Compare.model_fields}
    return _checked(Compare, known | {"primary": [], "secondary": []}, f"{path}: compare")


def read_answers(results: Path, arms: Mapping[str, Arm], settings: Compare) -> dict[str, Tested]:
    """Every arm's answers to the test questions, from `results/STUDY/predictions`.

    Raises `UserError` where two runs answered other questions.
    """
    first: Predictions | None = None
    answers = {}
    for name, arm in arms.items():
        folder = results / arm.study / "predictions"
        teacher = read_predictions(folder / "teacher.parquet")
        runs = [read_predictions(folder / f"{run}.parquet").of_split("test") for run in arm.runs]
        first = first or runs[0]
        for run_name, run in zip(arm.runs, runs, strict=True):
            if part := differing(run, first):
                raise UserError(
                    f"{folder / run_name}.parquet answers questions that differ in {part} from "
                    f"those of {next(iter(arms))}; studies that are compared must have "
                    "the same data section"
                )
        each = [Answers.of(run, settings.accuracy) for run in runs]
        answers[name] = Tested(
            np.stack([one.hits for one in each]),
            np.stack([one.nll for one in each]),
            runs[0].parameters / teacher.parameters,
        )
    return answers


def controls_json(
    results: Path, controls: Controls, settings: Compare, partial: bool = False
) -> dict[str, Any]:
    """Each arm's accuracy and NLL, and each contrast's paired difference, with intervals.

    `p` is McNemar's exact one (two-sided). A contrast of the two losses at a cell of one study has
    the `holm_p` and the `verdict` that this study gives it; the others are one family. What cannot
    be had is null.

    With `partial`, studies may be missing: a contrast that needs one is `not run`, and counts in
    the family of the others, for it was named with them.
    """
    there = {
        name: arm
        for name, arm in controls.arms.items()
        if not partial or (results / arm.study).is_dir()
    }
    answers = read_answers(results, there, settings)
    contrasts = [
        _contrast(contrast, answers, settings) | _of_study(results, controls, contrast)
        for contrast in controls.contrasts
    ]
    family = [one for one in contrasts if "holm_p" not in one]
    for one, holm_p in zip(family, holm([one["p"] for one in family]), strict=True):
        clear = bool(holm_p < 1 - settings.confidence)
        one["holm_p"] = holm_p
        one.setdefault("verdict", verdict(one["accuracy"], settings.margin, clear))
    return {
        "questions": next(iter(answers.values())).right.shape[1],
        **settings.model_dump(include={"accuracy", "confidence", "margin"}),
        "arms": {
            name: {
                **controls.arms[name].model_dump(),
                "retention": as_json(found.retention),
                "accuracy": as_json(mean_interval(found.right, settings, (0, 1))),
                "nll": as_json(mean_interval(found.nll, settings)),
            }
            for name, found in answers.items()
        },
        "contrasts": [as_json(one) for one in contrasts],
    }


def _contrast(
    contrast: Contrast, answers: Mapping[str, Tested], settings: Compare
) -> dict[str, Any]:
    named = contrast.model_dump(exclude_none=True)
    if not answers.keys() >= set(contrast.named):
        lacks = {"accuracy": UNKNOWN, "nll": UNKNOWN, "p": math.nan}
        return {**named, **lacks, "verdict": "not run"}
    arms = [answers[name] for name in contrast.named]
    if len({len(arm.right) for arm in arms}) > 1:
        counts = ", ".join(str(len(arm.right)) for arm in arms)
        raise UserError(
            f"{', '.join(contrast.named)} have {counts} runs; a paired difference takes as many of "
            "each"
        )
    # Where a lead does not hang on what the two pairs differ in, they could be exchanged question
    # by question: the same test.
    up, down = arms[::2], arms[1::2]
    right, other = (np.sum([arm.right for arm in side], axis=0) for side in (up, down))
    nll, other_nll = (np.sum([arm.nll for arm in side], axis=0) for side in (up, down))
    return {
        **named,
        "accuracy": mean_interval(right - other, settings, (-len(up), len(up))),
        "nll": mean_interval(nll - other_nll, settings),
        "p": rounded(paired_test(right, other).p),
    }


def _of_study(results: Path, controls: Controls, contrast: Contrast) -> dict[str, Any]:
    """What a study says of KL - CE at a cell of its own; nothing of another contrast."""
    arm, other = controls.arms[contrast.arm], controls.arms[contrast.other]
    path = results / arm.study / "metrics" / "compare" / "paired.json"
    runs = [{run.rpartition("-")[0] for run in one.runs} for one in (arm, other)]
    if not contrast.less and arm.study == other.study and path.is_file():
        for cell, found in json.loads(path.read_text(encoding="utf-8"))["sweep"].items():
            if runs == [{f"distill/{cell}"}, {f"finetune/{cell}"}]:
                return {"holm_p": found["holm_p"], "verdict": found["verdict"]}
    return {}


def _checked(form: type[S], values: Any, place: Path | str) -> S:
    """The values in this form; faults are a `UserError` that names the place and the keys."""
    try:
        return form.model_validate(values)
    except ValidationError as error:
        faults = [(".".join(map(str, one["loc"])), one["msg"].lower()) for one in error.errors()]
        listed = "; ".join(f"{key}: {fault}" for key, fault in faults)
        raise UserError(f"{place}: {listed}") from None
