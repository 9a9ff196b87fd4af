"""Neuron importance, the choice of neurons, the smaller MLP.

A neuron of a gated MLP is row j of `gate_proj`, row j of `up_proj` and column j of `down_proj`.
Removing it makes the three matrices smaller; the model is equal to the dense one with that
neuron's activation set to zero.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from regrow.errors import UserError
from regrow.forward import row_logits
from regrow.trees import Tree, by_tokens, flat_rows, pack

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def find_mlps(model: Any) -> list[Any]:
    """The gated MLP of every decoder layer, first layer first.

    Raises:
        UserError: a layer has no module with `gate_proj`, `up_proj` and `down_proj`.
    """
    mlps = []
    layers = next(m for m in model.base_model.modules() if isinstance(m, nn.ModuleList))
    for number, layer in enumerate(layers):
        found = [
            module
            for module in layer.modules()
            if all(isinstance(getattr(module, name, None), nn.Linear) for name in PROJECTIONS)
        ]
        if len(found) != 1:
            held = ", ".join(name for name, _ in layer.named_children())
            raise UserError(
                f"layer {number} of this {model.config.model_type} model has no single gated MLP "
                f"with {', '.join(PROJECTIONS)} (it holds {held}); models built like Llama, Qwen, "
                "Mistral, Gemma or OLMo 2 can be pruned"
            )
        mlps.append(found[0])
    return mlps


def count_mlp_parameters(model: Any) -> int:
    """Parameters of all gated MLPs."""
    return sum(parameter.numel() for mlp in find_mlps(model) for parameter in mlp.parameters())


def l2_importance(mlp: Any) -> torch.Tensor:
    """L2 norm of each neuron's weights in all three matrices: [neurons], float64.

    The score of Sander et al. 2025 (arXiv 2505.18166).
    """
    gate, up, down = (getattr(mlp, name).weight.detach().double() for name in PROJECTIONS)
    squares: torch.Tensor = gate.square().sum(1) + up.square().sum(1) + down.square().sum(0)
    return squares.sqrt()


def random_importance(mlp: Any, seed: int, layer: int) -> torch.Tensor:
    """A uniform draw for each neuron, its own stream for each seed and layer: [neurons], float64.

    The control that keeps what chance keeps.
    """
    # The last number keeps it apart from the questions' order (training.py).
    generator = np.random.default_rng([seed, layer, 2])
    return torch.from_numpy(generator.random(mlp.gate_proj.out_features))


def activation_importance(mlp: Any, activation_norms: torch.Tensor) -> torch.Tensor:
    """Each neuron's activation norm times its `down_proj` column's norm: [neurons], float64.

    How much the neuron writes to the residual stream. It is Wanda's score |W| * ||X||
    (Sun et al. 2023, arXiv 2306.11695) of the `down_proj` column, as one norm.

    Args:
        mlp: a gated MLP.
        activation_norms: [neurons], the L2 norm of each neuron's activations over some text.
    """
    column: torch.Tensor = mlp.down_proj.weight.detach().double().norm(dim=0)
    return column * activation_norms.double().to(column.device)


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
