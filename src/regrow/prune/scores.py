"""Neuron importance: one function a score, all of them in `SCORES`.

A score takes what may tell a layer's neurons apart and gives one number a neuron; of two neurons
the one of the lower number goes first. A new one is a function here and nothing else: schema,
stages, figures and report read the table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from regrow.model.forward import row_logits
from regrow.model.mlps import PROJECTIONS, find_mlps
from regrow.model.trees import Tree, by_tokens, flat_rows, pack
from regrow.support.tables import Table


@dataclass(frozen=True, slots=True)
class Neurons:
    """One layer's neurons, as a score sees them.

    Attributes:
        mlp: the gated MLP.
        layer: its number, from 0.
        seed: of scores that draw (`prune.seed`).
        norms: gives each neuron's activation norm over the train questions, [neurons] float64; it
            runs the model when it is first asked, so that scores of weights alone need no run.
    """

    mlp: Any
    layer: int
    seed: int
    norms: Callable[[], torch.Tensor]


SCORES: Table[Callable[[Neurons], torch.Tensor]] = Table()


@SCORES.entry
def l2(neurons: Neurons) -> torch.Tensor:
    """The L2 norm of the neuron's weights in all three matrices.

    The score of Sander et al. 2025 (arXiv 2505.18166): [neurons], float64.
    """
    gate, up, down = (getattr(neurons.mlp, name).weight.detach().double() for name in PROJECTIONS)
    squares: torch.Tensor = gate.square().sum(1) + up.square().sum(1) + down.square().sum(0)
    return squares.sqrt()


@SCORES.entry
def random(neurons: Neurons) -> torch.Tensor:
    """A random draw: the control that keeps what chance keeps.

    Uniform, its own stream for each seed and layer: [neurons], float64.
    """
    # The last number keeps it apart from the questions' order (retrain/order.py).
    generator = np.random.default_rng([neurons.seed, neurons.layer, 2])
    return torch.from_numpy(generator.random(neurons.mlp.gate_proj.out_features))


@SCORES.entry
def activation(neurons: Neurons) -> torch.Tensor:
    """The neuron's activation norm times the norm of its output weights.

    How much the neuron writes to the residual stream. It is Wanda's score |W| * ||X||
    (Sun et al. 2023, arXiv 2306.11695) of the `down_proj` column, as one norm: [neurons], float64.
    """
    column: torch.Tensor = neurons.mlp.down_proj.weight.detach().double().norm(dim=0)
    return column * neurons.norms().double().to(column.device)


def importances(model: Any, score: str, seed: int, trees: Sequence[Tree]) -> list[torch.Tensor]:
    """The importance of every neuron under one score: [neurons] a layer, first layer first."""
    recorded: list[torch.Tensor] = []

    def norms(layer: int) -> torch.Tensor:
        if not recorded:
            recorded.extend(record_activation_norms(model, trees))
        return recorded[layer]

    return [
        SCORES[score](Neurons(mlp, layer, seed, partial(norms, layer)))
        for layer, mlp in enumerate(find_mlps(model))
    ]


@torch.inference_mode()
def sum_activations(
    model: Any,
    trees: Sequence[Tree],
    of: Callable[[torch.Tensor], torch.Tensor],
    batch_tokens: int = 2048,
) -> list[torch.Tensor]:
    """Sum of `of` of each neuron's activations over all nodes of `trees`: [neurons] a layer.

    A neuron's activation is what `down_proj` reads of it.

    Args:
        model: one with gated MLPs.
        trees: what it reads.
        of: [nodes, neurons], float64, to the same shape.
        batch_tokens: about how many tokens to run at once.
    """
    mlps = find_mlps(model)
    sums = [torch.zeros(mlp.gate_proj.out_features, dtype=torch.float64) for mlp in mlps]
    rows = torch.zeros(0, dtype=torch.int64)

    def watch(layer: int) -> Any:
        def hook(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            activations = inputs[0].reshape(-1, inputs[0].shape[-1])[rows.to(inputs[0].device)]
            sums[layer] += of(activations.double()).sum(0).cpu()

        return hook

    handles = [
        mlp.down_proj.register_forward_pre_hook(watch(layer)) for layer, mlp in enumerate(mlps)
    ]
    try:
        for members in by_tokens(trees, batch_tokens):
            packed = [trees[index] for index in members]
            batch = pack(packed)
            rows = flat_rows(batch, packed, "all")
            row_logits(model, batch, rows[:1])
    finally:
        for handle in handles:
            handle.remove()
    return sums


def record_activation_norms(
    model: Any, trees: Sequence[Tree], batch_tokens: int = 2048
) -> list[torch.Tensor]:
    """L2 norm of each neuron's activations over all nodes of `trees`: [neurons] a layer."""
    squares = sum_activations(model, trees, torch.square, batch_tokens)
    return [total.sqrt() for total in squares]
