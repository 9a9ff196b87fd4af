"""What pruning takes: each neuron's weight norm, its activation, and the sparsities it goes at.

The L2 score of Sander et al. 2025 (arXiv 2505.18166) looks at weights alone. What a model loses
with a neuron depends on its activation too (Sun et al. 2023, arXiv 2306.11695), and a neuron that
is light and active goes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from regrow.model.trees import Tree
from regrow.prune.removal import kept_count, kept_neurons
from regrow.prune.scores import sum_activations
from regrow.support.errors import UserError
from regrow.support.files import rounded

Array = NDArray[np.float64]
Row = dict[str, object]
"""A CSV line by column; None is an empty field."""


QUANTILES = {
    "min": 0.0,
    "q05": 0.05,
    "q25": 0.25,
    "median": 0.5,
    "q75": 0.75,
    "q95": 0.95,
    "max": 1,
}


@dataclass(frozen=True, slots=True)
class Layer:
    """The neurons of one layer.

    Attributes:
        norms: [neurons], L2 norm of a neuron's weights in all three matrices.
        activations: [neurons], mean absolute input to `down_proj` over the tokens.
        removed: [neurons] for each sparsity, true where the neuron goes.
    """

    norms: Array
    activations: Array
    removed: Mapping[float, NDArray[np.bool_]]

    @property
    def lowest(self) -> int:
        """The neuron of the lowest norm (the first of equals)."""
        return int(np.argmin(self.norms))

    @property
    def most_active(self) -> int:
        """The neuron of the highest activation (the first of equals)."""
        return int(np.argmax(self.activations))

    def activation_rank(self, neuron: int) -> int:
        """1 for the layer's highest activation; equals share the best rank."""
        return 1 + int((self.activations > self.activations[neuron]).sum())

    def norm_rank(self, neuron: int) -> int:
        """1 for the layer's lowest norm; equals share the best rank."""
        return 1 + int((self.norms < self.norms[neuron]).sum())

    def over_median(self, neuron: int) -> float | None:
        """A neuron's activation over the layer's median activation; None where that is 0."""
        median = float(np.median(self.activations))
        return float(self.activations[neuron]) / median if median else None

    def activation_removed(self, sparsity: float) -> float | None:
        """The removed neurons' share of the layer's summed activations; None where that is 0."""
        total = float(self.activations.sum())
        return float(self.activations[self.removed[sparsity]].sum()) / total if total else None

    @property
    def spearman(self) -> float | None:
        """Rank correlation of norm and activation; None where either does not vary."""
        if min(np.ptp(self.norms), np.ptp(self.activations)) == 0:
            return None
        return float(spearmanr(self.norms, self.activations).statistic)


@dataclass(frozen=True, slots=True)
class Importance:
    """Every layer of a model, first layer first, and what its numbers stand on.

    Attributes:
        layers: at least one.
        sparsities: those of the sweep, the smallest first.
        score: `prune.score`, by which the removed neurons were chosen.
        questions: how many train questions the activations are from.
        tokens: how many tokens that is, a shared context counted once.
    """

    layers: Sequence[Layer]
    sparsities: Sequence[float]
    score: str
    questions: int
    tokens: int

    @property
    def neurons(self) -> int:
        """Neurons of a layer."""
        return len(self.layers[0].norms)

    def neurons_removed(self, sparsity: float) -> float:
        """The share of neurons that go, the same in every layer: the sparsity, rounded."""
        return float(self.layers[0].removed[sparsity].mean())


def mean_activations(model: Any, trees: Sequence[Tree], batch_tokens: int = 2048) -> list[Array]:
    """Each neuron's mean absolute activation over all nodes of `trees`: [neurons] a layer.

    Raises:
        UserError: an activation is too large for the model's dtype.
    """
    sums = sum_activations(model, trees, torch.abs, batch_tokens)
    for layer, total in enumerate(sums):
        if not total.isfinite().all():
            raise UserError(
                f"activations of layer {layer} are not finite in {model.dtype}; "
                "set compute.dtype to float32 or bfloat16"
            )
    tokens = sum(tree.nodes for tree in trees)
    return [(total / tokens).numpy() for total in sums]


def removed_neurons(
    importance: torch.Tensor, sparsities: Sequence[float], multiple_of: int
) -> dict[float, NDArray[np.bool_]]:
    """Which neurons of a layer the stage `prune` removes: [neurons] for each sparsity."""
    removed = {}
    for sparsity in sparsities:
        gone = np.ones(len(importance), dtype=np.bool_)
        count = kept_count(len(importance), sparsity, multiple_of)
        gone[kept_neurons(importance, count).cpu().numpy()] = False
        removed[sparsity] = gone
    return removed


def as_rows(importance: Importance) -> list[Row]:
    """A CSV line for each layer."""
    return [
        {
            "layer": number,
            "neurons": importance.neurons,
            **{
                f"l2_{name}": rounded(float(np.quantile(layer.norms, at)))
                for name, at in QUANTILES.items()
            },
            "activation_median": rounded(float(np.median(layer.activations))),
            "activation_max": rounded(float(layer.activations.max())),
            "lowest_neuron": layer.lowest,
            "lowest_activation": rounded(float(layer.activations[layer.lowest])),
            "lowest_activation_rank": layer.activation_rank(layer.lowest),
            "most_active_neuron": layer.most_active,
            "most_active_norm_rank": layer.norm_rank(layer.most_active),
            "spearman": _rounded(layer.spearman),
            **{
                f"activation_removed_at_{sparsity}": _rounded(layer.activation_removed(sparsity))
                for sparsity in importance.sparsities
            },
        }
        for number, layer in enumerate(importance.layers)
    ]


def as_json(importance: Importance) -> dict[str, float | str | None]:
    """The flat numbers of `metrics/importance.json`; what cannot be had is null.

    `activation_removed_at_S` without a layer is the mean over layers, each of which counts alike,
    whatever the size of its activations.
    """
    numbers: dict[str, float | str | None] = {
        "score": importance.score,
        "layers": len(importance.layers),
        "neurons": importance.neurons,
        "questions": importance.questions,
        "tokens": importance.tokens,
    }
    for sparsity in importance.sparsities:
        shares = [layer.activation_removed(sparsity) for layer in importance.layers]
        known = [share for share in shares if share is not None]
        numbers[f"neurons_removed_at_{sparsity}"] = rounded(importance.neurons_removed(sparsity))
        numbers[f"activation_removed_at_{sparsity}"] = (
            rounded(float(np.mean(known))) if known else None
        )
    for number, layer in enumerate(importance.layers):
        name = f"layer_{number}"
        numbers[f"{name}.lowest_neuron"] = layer.lowest
        numbers[f"{name}.lowest_activation_rank"] = layer.activation_rank(layer.lowest)
        numbers[f"{name}.lowest_activation_over_median"] = _rounded(layer.over_median(layer.lowest))
        numbers[f"{name}.spearman"] = _rounded(layer.spearman)
        for sparsity in importance.sparsities:
            share = layer.activation_removed(sparsity)
            numbers[f"{name}.activation_removed_at_{sparsity}"] = _rounded(share)
    return numbers


def _rounded(value: float | None) -> float | None:
    return None if value is None else rounded(value)
