"""Peak memory of a training step and of a forward pass, in bytes, from shapes.

What a forward pass keeps for its backward pass is not guessed but asked of torch: one and two
layers run on fake tensors, which have shapes and no content, and autograd says what it saves.
docs/scale.md holds predictions beside measurements (`python -m benchmarks.memory`).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM

from regrow.plan.shapes import BYTES, Shape
from regrow.retrain.trainer import PART_ROWS
from regrow.support.schema import Compute

LOGITS = 4  # float32, in which losses and scores are made
HOLES = 1.2  # batches are of many sizes, and what one frees does not always hold the next; measured
COPIES = 5  # of a part's logits: themselves, softened, their log-softmax, two gradients
GLOO = 2.0  # what is gathered and freed on a CPU is given back late, and gloo copies; measured


@dataclass(frozen=True, slots=True)
class Load:
    """What a forward pass holds: `rows` of `length` tokens, and logits at `read` of them."""

    rows: int
    length: int
    read: int

    @property
    def tokens(self) -> int:
        """All tokens, padding too."""
        return self.rows * self.length


@dataclass(frozen=True, slots=True)
class Saved:
    """Bytes that a forward pass keeps: of each layer, and of what lies before and behind them."""

    layer: int
    outside: int


def training(shape: Shape, load: Load, compute: Compute, accumulated: bool) -> int:
    """Peak bytes on a device of training steps after the first, which makes AdamW's states.

    The peak lies behind the forward pass, with all activations, or at the end of the backward pass,
    with all gradients. `load` is the largest micro-batch of a rank; `accumulated` is whether
    gradients of an earlier one are there from the start.
    """
    own = BYTES[compute.dtype]
    width = 2 if compute.mixed_precision else own
    parts = compute.processes if compute.shard else 1
    layers, hidden = int(shape.config.num_hidden_layers), int(shape.config.hidden_size)
    saved = saved_bytes(shape.config, load, compute)
    gradients = shape.parameters * own // parts
    held = 3 * gradients  # weights and AdamW's moments
    kept = saved.layer * layers + saved.outside
    # The gradients of a layer's activations, in the widest place of its MLP.
    backward = 3 * load.tokens * int(shape.config.intermediate_size) * width
    if compute.checkpointing:
        kept = load.tokens * hidden * width * layers + saved.outside + saved.layer
    matrix = shape.embedding * own
    # Logits of a part of the rows, and the output matrix' gradient.
    output = COPIES * min(load.read, PART_ROWS) * int(shape.config.vocab_size) * LOGITS + matrix
    first = int(HOLES * (kept + max(output, backward))) + (gradients if accumulated else 0)
    # The embedding's gradient comes last: a tied matrix has one already, to which it is added.
    last = gradients + saved.layer + max(backward, matrix if shape.tied else 0)
    if compute.shard:
        # A layer's weights, those of the next, its gradient; and the output matrix, which stays.
        gathered = 2 * shape.layer * width + shape.layer * own + shape.embedding * width
        # The embedding's gradient before it is dealt out, flattened, and once more as gloo sums it.
        cpu = compute.device == "cpu"
        first, last = first + gathered, last + gathered + matrix * (3 if cpu else 2)
        if cpu:
            first, last = int(GLOO * first), int(GLOO * last)
    elif compute.processes > 1:
        first, last = first + gradients, last + gradients  # DDP's buckets
    elif compute.mixed_precision:
        first += width * shape.embedding  # autocast keeps the cast that it made
    return held + max(first, last)


def inference(shape: Shape, load: Load, compute: Compute) -> int:
    """Peak bytes on a device of a forward pass with no backward pass over the largest batch."""
    own = BYTES[compute.dtype]
    width = 2 if compute.mixed_precision else own
    hidden, neurons = int(shape.config.hidden_size), int(shape.config.intermediate_size)
    logits = LOGITS + (width if width < LOGITS else 0)
    inside = load.tokens * (3 * hidden * own + 3 * neurons * width)
    behind = load.tokens * hidden * own + load.read * int(shape.config.vocab_size) * logits
    held = shape.parameters * own
    if compute.shard:  # and a layer's weights, those of the next, and the output matrix
        held = held // compute.processes + 2 * shape.layer * width + shape.embedding * width
    return held + max(inside, behind)


# What autograd saves


def saved_bytes(config: Any, load: Load, compute: Compute) -> Saved:
    """What a forward pass over `load` keeps, from one layer and from two."""
    text, mixed = config.to_json_string(use_diff=False), compute.mixed_precision
    # FSDP2 casts whole layers.
    dtype, cast = (mixed, False) if compute.shard and mixed else (compute.dtype, mixed is not None)
    one, two = (_saved(text, layers, load, dtype, cast) for layers in (1, 2))
    return Saved(two - one, 2 * one - two)


@cache
def _saved(text: str, layers: int, load: Load, dtype: str, cast: bool) -> int:
    """Bytes that so many layers of a configuration, in JSON, keep; the text is the cache's key."""
    config = AutoConfig.for_model(**json.loads(text))
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    with FakeTensorMode(), torch.device("cpu"):
        build: Any = AutoModelForCausalLM.from_config
        model = build(config, dtype=getattr(torch, dtype), attn_implementation="sdpa")
        model.train()
        own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        tokens = torch.zeros(load.rows, load.length, dtype=torch.int64)
        sees = torch.ones(load.rows, 1, load.length, load.length, dtype=torch.bool)
        inside = torch.autocast("cpu", torch.bfloat16) if cast else nullcontext()
        with _counting(own) as storages, inside:
            model.base_model(
                input_ids=tokens, position_ids=tokens, attention_mask=sees, use_cache=False
            )
        return sum(storages.values())


@contextmanager
def _counting(own: set[int]) -> Iterator[dict[int, int]]:
    """Bytes of every storage that autograd keeps meanwhile, but for the storages `own`."""
    found: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # or another storage might get the place of a freed one

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found
