"""What pruning takes: each neuron's weight norm, its activation, and where it goes.

The L2 score of Sander et al. 2025 (arXiv 2505.18166) looks at weights alone, and what a model loses
with a neuron depends on its activation too (Sun et al. 2023, arXiv 2306.11695).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from regrow.model.trees import Tree
from regrow.prune.activations import sum_activations
from regrow.support.errors import UserError
from regrow.support.files import as_json

Array = NDArray[np.float64]
Cut = tuple[str, float]
"""A score and a sparsity: one pruned model."""

QUANTILES = {"min": 0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1}


@dataclass(frozen=True, slots=True)
class Layer:
    """The neurons of one layer.

    Attributes:
        norms: [neurons], L2 norm of a neuron's weights in all three matrices.
        activations: [neurons], mean absolute input to `down_proj` over the tokens.
        removed: [neurons] for each score and sparsity, true where the neuron goes.
    """

    norms: Array
    activations: Array
    removed: Mapping[Cut, NDArray[np.bool_]]

    @property
    def lowest(self) -> int:
        """The neuron of the lowest norm (the first of equals)."""
        return int(np.argmin(self.norms))

    def activation_rank(self, neuron: int) -> int:
        """1 for the layer's highest activation; equals share the best rank."""
        return 1 + int((self.activations > self.activations[neuron]).sum())

    def over_median(self, neuron: int) -> float:
        """A neuron's activation over the layer's median activation; NaN where that is 0."""
        return float(self.activations[neuron]) / (float(np.median(self.activations)) or np.nan)

    def activation_removed(self, cut: Cut) -> float:
        """The removed neurons' share of the layer's summed activations; NaN where that is 0."""
        removed = float(self.activations[self.removed[cut]].sum())
        return removed / (float(self.activations.sum()) or np.nan)

    @property
    def spearman(self) -> float:
        """Rank correlation of norm and activation; NaN where either does not vary."""
        if min(np.ptp(self.norms), np.ptp(self.activations)) == 0:
            return np.nan
        return float(spearmanr(self.norms, self.activations).statistic)


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


def removed_neurons(kept: torch.Tensor, neurons: int) -> NDArray[np.bool_]:
    """Which of a layer's neurons go where those at the indices `kept` stay: [neurons]."""
    removed = np.ones(neurons, dtype=np.bool_)
    removed[kept.numpy()] = False
    return removed


def as_rows(layers: Sequence[Layer]) -> list[dict[str, object]]:
    """A CSV line for each layer; None is an empty field."""
    rows = []
    for number, layer in enumerate(layers):
        row = {
            "layer": number,
            "neurons": len(layer.norms),
            **{f"l2_{name}": np.quantile(layer.norms, q) for name, q in QUANTILES.items()},
            "activation_median": np.median(layer.activations),
            "activation_max": layer.activations.max(),
            "lowest_neuron": layer.lowest,
            "lowest_activation_rank": layer.activation_rank(layer.lowest),
            "lowest_activation_over_median": layer.over_median(layer.lowest),
            "spearman": layer.spearman,
        }
        for cut in layer.removed:
            row[f"activation_removed_{'-'.join(map(str, cut))}"] = layer.activation_removed(cut)
        rows.append(as_json(row))
    return rows


def in_short(layers: Sequence[Layer]) -> dict[str, object]:
    """For each pruned model, by its name, the share of neurons and of activation that goes.

    `activation_removed` is the mean over layers, each of which counts alike whatever the size of
    its activations, and null where no layer has any.
    """
    numbers: dict[str, object] = {"layers": len(layers), "neurons": len(layers[0].norms)}
    for cut, removed in layers[0].removed.items():
        shares = np.array([layer.activation_removed(cut) for layer in layers])
        known = shares[~np.isnan(shares)]
        share = known.mean() if known.size else np.nan
        removes = {"neurons_removed": removed.mean(), "activation_removed": share}
        numbers["-".join(map(str, cut))] = as_json(removes)
    return numbers
