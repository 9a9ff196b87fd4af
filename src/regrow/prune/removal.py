"""The choice of neurons, and the smaller model.

A neuron of a gated MLP is row j of `gate_proj`, row j of `up_proj` and column j of `down_proj`.
Removing it makes the three matrices smaller; the model is equal to the dense one with that
neuron's activation set to zero.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.core_model_loading import dot_natural_key

from regrow.model.folders import empty_model, tensor_parts
from regrow.model.mlps import PROJECTIONS, find_mlps
from regrow.prune.activations import NormsOf
from regrow.prune.scores import importances
from regrow.support.errors import UserError


def kept_count(neurons: int, sparsity: float, multiple_of: int) -> int:
    """How many of `neurons` stay, a multiple of `multiple_of`; `UserError` where that is more."""
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


def choose_neurons(
    teacher: Path, dtype: str, score: str, seed: int, count: int, norms: NormsOf
) -> list[torch.Tensor]:
    """The neurons that stay under a score: [count] indices a layer, first layer first.

    Arguments as of `importances`; `norms` is also told which neurons stay in each earlier layer.
    """
    kept: list[torch.Tensor] = []
    for importance in importances(teacher, dtype, score, seed, lambda layer: norms(layer, kept)):
        kept.append(kept_neurons(importance, count))
    return kept


def write_pruned(
    teacher: Path, kept: Sequence[torch.Tensor], out: Path, dtype: str, shard: str = "50GB"
) -> Any:
    """Write the model in `teacher` with the neurons `kept` alone; no whole tensor is in memory.

    The bytes are those of `save_pretrained`, in files of at most `shard`, without a tokenizer:
    `config.intermediate_size` follows, so that the folder loads with no code of ours. `kept` are
    [count] indices, the same count for every layer, first layer first.

    Returns:
        The pruned model on the device `meta`, without weights.
    """
    dense = empty_model(teacher, dtype)
    names = {parameter: name for name, parameter in dense.named_parameters()}
    cuts = {
        names[parameter]: (neurons, 1 if projection == "down_proj" else 0)
        for mlp, neurons in zip(find_mlps(dense), kept, strict=True)
        for projection in PROJECTIONS
        for part, parameter in getattr(mlp, projection).named_parameters()
        if (projection, part) != ("down_proj", "bias")
    }
    dense.config.intermediate_size = len(kept[0])
    with torch.device("meta"):
        build: Any = AutoModelForCausalLM.from_config
        smaller = build(dense.config, dtype=getattr(torch, dtype))
    if (teacher / "generation_config.json").exists():
        smaller.generation_config = GenerationConfig.from_pretrained(teacher)
    smaller.save_pretrained(out, state_dict={})  # all but the weights

    def parts(name: str) -> Iterator[torch.Tensor]:
        neurons, dimension = cuts.get(name, (None, 0))
        start = 0
        for part in tensor_parts(teacher, name, dtype):
            stop = start + len(part)
            if neurons is None:
                yield part
            elif dimension == 1:
                yield part.index_select(1, neurons)
            else:
                here = neurons[(neurons >= start) & (neurons < stop)]
                yield part.index_select(0, here - start)
            start = stop

    # Of tied matrices only the first, and in the order by which transformers fills shards.
    shapes = dict(sorted(smaller.named_parameters(), key=lambda item: dot_natural_key(item[0])))
    shards = split_torch_state_dict_into_shards(
        shapes, filename_pattern="model{suffix}.safetensors", max_shard_size=shard
    )
    for file, tensors in shards.filename_to_tensors.items():
        _write_tensors(out / file, {name: shapes[name] for name in tensors}, parts)
    if shards.is_sharded:
        parameters = sum(parameter.numel() for parameter in shapes.values())
        index = {
            "metadata": {"total_parameters": parameters, **shards.metadata},
            "weight_map": shards.tensor_to_filename,
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (out / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return smaller


DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def _write_tensors(
    path: Path,
    shapes: Mapping[str, torch.Tensor],
    parts: Callable[[str], Iterator[torch.Tensor]],
) -> None:
    """A safetensors file (https://github.com/huggingface/safetensors#format).

    The library's own writer takes all tensors at once; these are the bytes that it writes. `parts`
    gives the tensor of a name in parts of its rows.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    names = sorted(shapes)
    end = 0
    for name in names:
        start, end = end, end + shapes[name].nbytes
        kind, shape = DTYPES[shapes[name].dtype], list(shapes[name].shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for part in parts(name):
                file.write(part.contiguous().flatten().view(torch.uint8).numpy().data)
