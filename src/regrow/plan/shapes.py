"""A model's shapes from its configuration alone: no weight is made or read."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from regrow.model.folders import count_parameters
from regrow.plan.flops import Costs, costs

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Shape:
    """A model, dense or pruned.

    Attributes:
        config: its configuration.
        parameters: in all; tied matrices count once.
        layer: parameters of a decoder layer.
        outside: all but those of the layers: embedding, last norm, output matrix.
        embedding: parameters of the embedding.
        tied: whether the output matrix is the embedding's.
        costs: its operations.
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
