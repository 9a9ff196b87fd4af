"""Gradual pruning: equal steps of neurons, between which the model is retrained.

The stage `prune` makes the first step and writes down the others in its output. Retraining reads
them there and not in params.yaml: so it hangs on this room's code, whose hash is among them, where
there are steps between which to prune, and does not where there are none.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from regrow.model.folders import load_model, load_tokenizer
from regrow.model.trees import Tree
from regrow.prune.activations import norms_by_layer
from regrow.support import ranks
from regrow.support.errors import UserError
from regrow.support.files import replacing
from regrow.support.resume import content
from regrow.support.schema import Compute

FIRST = "step-1"
"""The folder of the first step's model, in that of the model which is pruned at once."""
FILE = "steps.json"
CODE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Steps:
    """How a model is pruned gradually: to so many neurons in each layer, step by step.

    Every step has a stream of its own for scores that draw. `code` is a hash of the code that
    pruned the first step.
    """

    score: str
    seed: int
    sequential: bool
    widths: list[int]
    code: str = field(default_factory=lambda: content(CODE))


def step_widths(neurons: int, kept: int, steps: int, multiple_of: int) -> list[int]:
    """Neurons that stay after each of `steps` equal steps; `UserError` where there are fewer."""
    exact = (neurons - (neurons - kept) * step / steps for step in range(1, steps))
    widths = [*(round(width / multiple_of) * multiple_of for width in exact), kept]
    if steps > 1 and any(before <= after for before, after in pairwise([neurons, *widths])):
        raise UserError(
            f"prune.steps is {steps}, but from {neurons} neurons to {kept} in multiples of "
            f"{multiple_of} there are fewer steps; lower it"
        )
    return widths


def read_steps(folder: Path) -> Steps | None:
    """How the model of a folder is pruned gradually, else None; `UserError` if by other code."""
    path = folder / FILE
    if not path.exists():
        return None
    steps = Steps(**json.loads(path.read_text(encoding="utf-8")))
    if steps.code != content(CODE):
        raise UserError(
            f"{folder} was pruned by other code than there is now, and the next steps would not "
            "fit it; prune it again with `dvc repro`"
        )
    return steps


def prune_on(
    model: Path, steps: Steps, step: int, trees: Sequence[Tree], compute: Compute, out: Path
) -> None:
    """Write the model in `model` to `out`, pruned to the width of a step, which counts from 1.

    Every rank calls it. Neurons are scored as they are there, by activations on `trees`.
    """
    # Imports transformers, which retraining at once need not wait for.
    from regrow.prune.removal import choose_neurons, write_pruned

    def read() -> tuple[Any, Sequence[Tree]]:
        return load_model(model, compute.dtype, ranks.local_device(compute.device)), trees

    # The same stream again would draw a neuron's number by its place among those that are left.
    seed = int(np.random.SeedSequence([steps.seed, step]).generate_state(1)[0])
    norms = norms_by_layer(read, steps.sequential)
    kept = choose_neurons(model, compute.dtype, steps.score, seed, steps.widths[step - 1], norms)
    if ranks.first():
        with replacing(out) as beside:
            write_pruned(model, kept, beside, compute.dtype)
            load_tokenizer(model).save_pretrained(beside)
    ranks.wait()
