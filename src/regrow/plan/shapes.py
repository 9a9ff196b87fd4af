"""A model's shapes, from its configuration alone, and the operations that tasks cannot do without.

A multiplication and an addition are two operations. Counted are the products of matrices: the
linear layers for every token of a token tree, attention for every pair of tokens that see each
other, the output matrix for every row whose logits are read. Padding, a context that is run once
more for every choice and logits that nobody reads are waste: the time that they take counts, the
operations do not. Norms, activations, softmaxes and the optimizer are left out, as is usual.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from regrow.model.folders import count_parameters
from regrow.model.trees import Positions, Tree

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Costs:
    """Operations of a model's forward pass.

    Attributes:
        token: for each token, in all linear layers but the output matrix.
        pair: for each pair of tokens of which one sees the other, in all layers' attention.
        row: for each row of logits.
    """

    token: int
    pair: int
    row: int


@dataclass(frozen=True, slots=True)
class Shape:
    """A model, dense or pruned.

    Attributes:
        parameters: in all; tied matrices count once.
        layer: parameters of a decoder layer.
        outside: all but those of the layers: embedding, last norm, output matrix.
        tied: whether the output matrix is the embedding's.
    """

    config: Any
    parameters: int
    layer: int
    outside: int
    embedding: int
    tied: bool
    costs: Costs


def shape_of(config: Any, neurons: int | None = None) -> Shape:
    """The shapes of a model of this configuration, of another width of its MLPs where given."""
    config = copy.deepcopy(config)
    if neurons is not None:
        config.intermediate_size = neurons
    with torch.device("meta"):
        build: Any = AutoModelForCausalLM.from_config
        model = build(config, trust_remote_code=False)
    layers = next(part for part in model.base_model.modules() if isinstance(part, nn.ModuleList))
    parameters, layer = count_parameters(model), count_parameters(layers[0])
    embedding = model.get_input_embeddings().weight
    return Shape(
        config=config,
        parameters=parameters,
        layer=layer,
        outside=parameters - layer * len(layers),
        embedding=embedding.numel(),
        tied=model.get_output_embeddings().weight is embedding,
        costs=costs(model),
    )


def costs(model: Any) -> Costs:
    """Count from the shapes that the model's layers have, so that a pruned one costs less."""
    config = model.config
    output = model.get_output_embeddings()
    weights = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not output
    )
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # Of each pair: the products of query and key, and of probability and value.
    pair = 2 * 2 * config.num_attention_heads * head * config.num_hidden_layers
    return Costs(2 * weights, pair, 2 * output.weight.numel())


def forward(model_costs: Costs, tokens: int, pairs: int, rows: int) -> int:
    """Operations of a forward pass."""
    return model_costs.token * tokens + model_costs.pair * pairs + model_costs.row * rows


def chain_pairs(tokens: int) -> int:
    """Pairs of a text in which every token sees itself and all before it."""
    return tokens * (tokens + 1) // 2


def tree_pairs(tree: Tree) -> int:
    """Pairs of a token tree: a branch's tokens see the context and their own branch."""
    stem = len(tree.context)
    nodes = [len(branch) - 1 for branch in tree.branches]
    return chain_pairs(stem) + sum(stem * count + chain_pairs(count) for count in nodes)


def trees_forward(model_costs: Costs, trees: Sequence[Tree], positions: Positions) -> int:
    """Operations of a forward pass over token trees, with logits at `positions`."""
    return forward(
        model_costs,
        sum(tree.nodes for tree in trees),
        sum(tree_pairs(tree) for tree in trees),
        sum(len(tree.rows(positions)) for tree in trees),
    )
