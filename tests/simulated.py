"""Predictions of simulated models, so that tests of the statistics need no model."""

from pathlib import Path
from typing import Any

import numpy as np

from regrow.compare.study import run_names
from regrow.evaluate.predictions import Predictions
from regrow.support.params import read_params
from regrow.support.schema import Compare, Sweep

MLP, OTHER = 600, 400


def simulated_study(
    sweep: Sweep,
    test: int = 120,
    calibration: int = 40,
    choices: tuple[int, ...] = (5,),
    gain: float = 0.6,
    seed: int = 0,
) -> dict[str, Predictions]:
    """Every run of `sweep`: pruning costs, retraining recovers, KL recovers `gain` logits more.

    choices: the numbers of choices that questions take in turn.
    """
    rng = np.random.default_rng(seed)
    size = test + calibration
    splits = ["calibration"] * calibration + ["test"] * test
    counts = [choices[index % len(choices)] for index in range(size)]
    answers = [int(rng.integers(count)) for count in counts]
    characters = [[int(value) for value in rng.integers(10, 13, count)] for count in counts]
    shared = [rng.gumbel(size=count) for count in counts]

    def run(skill: float, kept: float) -> Predictions:
        log_probs = []
        for count, answer, common in zip(counts, answers, shared, strict=True):
            scores = common + 0.7 * rng.gumbel(size=count)
            scores[answer] += skill
            log_probs.append([float(value) for value in scores - 12])
        return Predictions(
            ids=[f"question-{index}" for index in range(size)],
            splits=splits,
            answers=answers,
            log_probs=log_probs,
            tokens=[[1] * count for count in counts],
            characters=characters,
            parameters=round(OTHER + MLP * kept),
            mlp_parameters=round(MLP * kept),
        )

    runs = {}
    for name in run_names(sweep):
        kind, _, rest = name.partition("/")
        if kind == "teacher":
            runs[name] = run(2.2, 1)
            continue
        sparsity, *train_size = (float(part) for part in rest.split("-")[1:])
        loss = 3.5 * sparsity
        if kind == "pruned":
            runs[name] = run(max(0.0, 2.2 - 2 * loss), 1 - sparsity)
            continue
        learned = min(1.0, train_size[0] / 1000)
        runs[name] = run(
            max(0.0, 2.2 - loss * (1.6 - learned)) + gain * (kind == "distill"), 1 - sparsity
        )
    return runs


def sweep_of(
    sparsity: tuple[float, ...] = (0.1, 0.2, 0.4, 0.6),
    train_size: tuple[int, ...] = (600,),
    seed: tuple[int, ...] = (0,),
    score: tuple[str, ...] = ("l2",),
) -> Sweep:
    """A sweep of a few runs."""
    return Sweep(
        score=list(score), sparsity=list(sparsity), train_size=list(train_size), seed=list(seed)
    )


def compare_settings(**changes: Any) -> Compare:
    """The default study's settings of the comparison, quick and raw unless `changes` say else.

    What that study named before its run are cells of its own sweep.
    """
    default = read_params(Path(__file__).parents[1] / "params.yaml").compare
    other = {"accuracy": "raw", "resamples": 400, "primary": [], "secondary": []}
    return Compare(**(default.model_dump() | other | changes))
