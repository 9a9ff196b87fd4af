"""What each neuron does while the model reads: sums and norms over all nodes of token trees.

A neuron's activation is what `down_proj` reads of it.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch

from regrow.model.forward import row_logits
from regrow.model.mlps import find_layers, find_mlps
from regrow.model.scoring import rounds
from regrow.model.trees import Tree, by_tokens, flat_rows, pack
from regrow.support import ranks

BATCH_TOKENS = 2048
Of = Callable[[torch.Tensor], torch.Tensor]
Run = tuple[torch.Tensor, Callable[[], object]]
NormsOf = Callable[[int, Sequence[torch.Tensor]], torch.Tensor]
"""From a layer's number, and the neurons that stay in each earlier one, to its norms [neurons]."""


def sum_activations(
    model: Any, trees: Sequence[Tree], of: Of, batch_tokens: int = BATCH_TOKENS
) -> list[torch.Tensor]:
    """Sum of `of`, from and to [nodes, neurons] float64, over all nodes: [neurons] a layer."""
    return _sums(find_mlps(model), of, _runs(model, trees, batch_tokens))


def activation_norms(
    model: Any, trees: Sequence[Tree], batch_tokens: int = BATCH_TOKENS
) -> list[torch.Tensor]:
    """L2 norm of each neuron's activations over all nodes of `trees`: [neurons] a layer."""
    return [sums.sqrt() for sums in sum_activations(model, trees, torch.square, batch_tokens)]


def norms_by_layer(read: Callable[[], tuple[Any, Sequence[Tree]]], sequential: bool) -> NormsOf:
    """Activation norms by layer, from the model that `read` gives when one is first asked for.

    With `sequential`, a layer's norms are those behind earlier layers that are pruned; then the
    model is pruned on the way, and every layer is asked for once, in order.
    """
    if sequential:
        walk = cache(lambda: SequentialNorms(*read()))
        return lambda layer, kept: walk().norms(layer, kept)
    recorded = cache(lambda: activation_norms(*read()))
    return lambda layer, _: recorded()[layer]


class SequentialNorms:
    """Activation norms of one layer after the other, the earlier ones pruned already.

    So does Wanda (Sun et al. 2023, arXiv 2306.11695, section 3). The hidden states between two
    layers are kept for all of `trees`, so that each layer runs three times in all. `model` is
    pruned on the way.
    """

    @torch.inference_mode()
    def __init__(self, model: Any, trees: Sequence[Tree], batch_tokens: int = BATCH_TOKENS) -> None:
        self._layers, self._mlps = find_layers(model), find_mlps(model)
        self._rows: list[torch.Tensor] = []
        self._states: list[torch.Tensor] = []  # a batch's, before the layer that is next
        self._calls: list[list[tuple[Any, Any]]] = []  # what else each layer is called with
        for rows, run in _runs(model, trees, batch_tokens):
            calls: list[tuple[Any, Any]] = []

            def keep(_layer: Any, given: Any, named: Any, calls: Any = calls) -> None:
                if not calls:
                    self._states.append(given[0])
                calls.append((given[1:], named))

            handles = [
                layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in self._layers
            ]
            run()
            for handle in handles:
                handle.remove()
            self._rows.append(rows)
            self._calls.append(calls)

    @torch.inference_mode()
    def norms(self, layer: int, kept: Sequence[torch.Tensor]) -> torch.Tensor:
        """The norms of a layer, [neurons], from the neurons that stay in each earlier one.

        Call it for each layer, first layer first.
        """
        if layer:
            gone = torch.ones(self._mlps[layer - 1].down_proj.in_features, dtype=torch.bool)
            gone[kept[layer - 1]] = False
            self._mlps[layer - 1].down_proj.weight[:, gone.to(self._states[0].device)] = 0
            self._states = [run() for run in self._run(layer - 1)]
        runs = list(zip(self._rows, self._run(layer), strict=True))
        (squares,) = _sums([self._mlps[layer]], torch.square, runs)
        return squares.sqrt()

    def _run(self, layer: int) -> list[Callable[[], torch.Tensor]]:
        """A layer's run on each batch, which gives the states behind it."""
        return [
            partial(self._layers[layer], states, *calls[layer][0], **calls[layer][1])
            for states, calls in zip(self._states, self._calls, strict=True)
        ]


def _runs(model: Any, trees: Sequence[Tree], batch_tokens: int) -> list[Run]:
    """For each batch of trees, the rows of its nodes, and what runs the model on it."""
    runs: list[Run] = []
    for members in by_tokens(trees, batch_tokens):
        packed = [trees[index] for index in members]
        batch = pack(packed)
        rows = flat_rows(batch, packed, "all")
        runs.append((rows, partial(row_logits, model, batch, rows[:1])))
    return runs


@torch.inference_mode()
def _sums(mlps: Sequence[Any], of: Of, runs: Sequence[Run]) -> list[torch.Tensor]:
    """Sum of `of` of the activations in some MLPs, at the given rows of each run.

    Ranks share the runs out, and each adds up all of them in their order.
    """
    rows = torch.zeros(0, dtype=torch.int64)
    found = [torch.zeros(mlp.gate_proj.out_features, dtype=torch.float64) for mlp in mlps]
    sums = [torch.zeros_like(of_one) for of_one in found]

    def watch(place: int, _module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        activations = inputs[0].reshape(-1, inputs[0].shape[-1])[rows.to(inputs[0].device)]
        found[place] = of(activations.double()).sum(0).cpu()

    handles = [
        mlp.down_proj.register_forward_pre_hook(partial(watch, place))
        for place, mlp in enumerate(mlps)
    ]
    try:
        for dealt in rounds(0, len(runs)):
            rows, run = runs[dealt[ranks.rank()]]
            run()
            for every in ranks.gathered(found)[: len(set(dealt))]:
                for total, one in zip(sums, every, strict=True):
                    total.add_(one)
    finally:
        for handle in handles:
            handle.remove()
    return sums
