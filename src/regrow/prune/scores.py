"""Neuron importance: one function a score, all of them in `SCORES`.

A score takes what may tell a layer's neurons apart and gives one number a neuron; of two neurons
the one of the lower number goes first. A new one is a function here and nothing else: schema,
stages, figures and report read the table.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regrow.model.folders import empty_model, read_tensor
from regrow.model.mlps import PROJECTIONS, find_mlps
from regrow.support.tables import Table


@dataclass(frozen=True, slots=True)
class Neurons:
    """One layer's neurons, as a score sees them."""

    count: int
    layer: int  # its number, from 0
    seed: int  # of scores that draw (`prune.seed`)
    # Gives the matrix `gate_proj` or `up_proj`, [neurons, hidden], or `down_proj`, [hidden,
    # neurons], which need not all be in memory at once.
    weight: Callable[[str], torch.Tensor]
    # Gives each neuron's activation norm over the train questions, [neurons] float64; it runs the
    # model when it is first asked, so that scores of weights alone need no run.
    norms: Callable[[], torch.Tensor]


SCORES: Table[Callable[[Neurons], torch.Tensor]] = Table()


@SCORES.entry
def l2(neurons: Neurons) -> torch.Tensor:
    """The L2 norm of the neuron's weights in all three matrices.

    The score of Sander et al. 2025 (arXiv 2505.18166): [neurons], float64.
    """
    squares = torch.zeros(neurons.count, dtype=torch.float64)
    for name in PROJECTIONS:
        along = 0 if name == "down_proj" else 1
        squares = squares + neurons.weight(name).to(torch.float64, copy=True).square_().sum(along)
    return squares.sqrt()


@SCORES.entry
def random(neurons: Neurons) -> torch.Tensor:
    """A random draw: the control that keeps what chance keeps.

    Uniform, its own stream for each seed and layer: [neurons], float64.
    """
    # The last number keeps it apart from the questions' order (retrain/order.py).
    generator = np.random.default_rng([neurons.seed, neurons.layer, 2])
    return torch.from_numpy(generator.random(neurons.count))


@SCORES.entry
def activation(neurons: Neurons) -> torch.Tensor:
    """The neuron's activation norm times the norm of its output weights.

    How much the neuron writes to the residual stream. It is Wanda's score |W| * ||X||
    (Sun et al. 2023, arXiv 2306.11695) of the `down_proj` column, as one norm: [neurons], float64.
    """
    column: torch.Tensor = neurons.weight("down_proj").double().norm(dim=0)
    return column * neurons.norms()


def importances(
    teacher: Path, dtype: str, score: str, seed: int, norms: Callable[[int], torch.Tensor]
) -> Iterator[torch.Tensor]:
    """The importance of every neuron under one score: [neurons] a layer, first layer first.

    Of `teacher` one matrix is in memory at a time. `norms` gives the activation norms of a layer,
    [neurons]; see `Neurons.norms`.
    """
    model = empty_model(teacher, dtype)
    names = {parameter: name for name, parameter in model.named_parameters()}
    for layer, mlp in enumerate(find_mlps(model)):

        def weight(projection: str, mlp: Any = mlp) -> torch.Tensor:
            name = names[getattr(mlp, projection).weight]
            tensor: torch.Tensor = read_tensor(teacher, name, dtype)
            return tensor

        count = mlp.gate_proj.out_features
        yield SCORES[score](Neurons(count, layer, seed, weight, partial(norms, layer)))
