"""Neuron importance, the choice of neurons, the smaller MLP.

A neuron of a gated MLP is row j of `gate_proj`, row j of `up_proj` and column j of `down_proj`.
Removing it makes the three matrices smaller; the model is equal to the dense one with that
neuron's activation set to zero.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from regrow.model.mlps import find_mlps
from regrow.support.errors import UserError


def kept_count(neurons: int, sparsity: float, multiple_of: int) -> int:
    """How many of `neurons` stay: the nearest multiple of `multiple_of`, at least one of them.

    Raises:
        UserError: `multiple_of` is larger than the layer.
    """
    if multiple_of > neurons:
        raise UserError(
            f"prune.multiple_of is {multiple_of}, but a layer has only {neurons} neurons; lower it"
        )
    return min(max(round((1 - sparsity) * neurons / multiple_of), 1) * multiple_of, neurons)


def kept_neurons(importance: torch.Tensor, count: int) -> torch.Tensor:
    """Indices [count] of the most important neurons, in their original order.

    Of equally important neurons the first stay.
    """
    order = torch.argsort(importance, descending=True, stable=True)
    return order[:count].sort().values


def remove_neurons(model: Any, importances: Sequence[torch.Tensor], count: int) -> None:
    """Shrink every MLP of `model`, in place, to its `count` most important neurons.

    `config.intermediate_size` follows, so that the saved folder loads with no code of ours.
    """
    for mlp, importance in zip(find_mlps(model), importances, strict=True):
        kept = kept_neurons(importance, count).to(mlp.down_proj.weight.device)
        for name in ("gate_proj", "up_proj"):
            projection = getattr(mlp, name)
            projection.weight = nn.Parameter(projection.weight.detach()[kept].clone())
            if projection.bias is not None:
                projection.bias = nn.Parameter(projection.bias.detach()[kept].clone())
            projection.out_features = count
        mlp.down_proj.weight = nn.Parameter(mlp.down_proj.weight.detach()[:, kept].clone())
        mlp.down_proj.in_features = count
        mlp.intermediate_size = count
    model.config.intermediate_size = count
