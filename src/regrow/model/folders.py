"""Model folders: loading and saving models and tokenizers, with no code or pickle of others."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrow.support import ranks
from regrow.support.errors import UserError, memory_fault, one_line
from regrow.support.files import replacing

PART = 2**26  # bytes of a tensor in double precision, far below any model's and above any overhead
ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
NO_MODEL = "holds no model that transformers can load"


def check_folder(folder: Path) -> None:
    """Raise `UserError` where a folder's JSON files name others outside it, or code.

    `from_pretrained` takes these values for paths as they are; what lies elsewhere on the machine
    is no part of the model.
    """
    for path in sorted(folder.glob("*.json")):
        if path.name not in ("config.json", "tokenizer_config.json") and ".index." not in path.name:
            continue
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            said = f"{path.name} is not JSON ({one_line(error)})"
            raise UserError(f"{folder} holds no model: {said}") from None
        for key, name in _files_named(values):
            if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
                raise UserError(
                    f"{path}: {key} is {name!r}, but must be the name of a file in this folder"
                )
            if name.endswith((".bin", ".pt", ".pth", ".pkl")):
                raise UserError(f"{path}: {key} is {name!r}, and pickles are never read")
        for name in _attentions(values):
            if name not in (None, "eager", "sdpa"):
                raise UserError(
                    f"{path}: attn_implementation is {name!r}, which may be code from the hub; "
                    "remove it"
                )


def _files_named(values: Any) -> Iterator[tuple[str, Any]]:
    """The keys and values of a JSON file that transformers opens as files of the folder."""
    if isinstance(values, dict):
        shards = values.get("weight_map")
        if isinstance(shards, dict):
            yield from ((f"weight_map[{key!r}]", name) for key, name in shards.items())
        versions = values.get("fast_tokenizer_files")
        if isinstance(versions, list):
            yield from (("fast_tokenizer_files", name) for name in versions)
        if values.get("transformers_weights") is not None:
            yield "transformers_weights", values["transformers_weights"]


def _attentions(values: Any) -> Iterator[Any]:
    """What a configuration and those inside it say of their attention."""
    if isinstance(values, dict):
        for key, value in values.items():
            if key in ("attn_implementation", "_attn_implementation"):
                yield from value.values() if isinstance(value, dict) else [value]
            else:
                yield from _attentions(value)


def check_size(config: Any, tensors: int, size: int, dtype: str = "float32") -> Any:
    """The model that a configuration asks for on the device `meta`, without weights.

    transformers makes the whole model, and fills with random numbers what the weights lack, before
    it says so: a few bytes could ask for all of the memory. Raises `ValueError` where a layer would
    have no tensor, or a parameter less than a bit of the weights' `size` in bytes.
    """
    import torch
    from transformers import AutoModelForCausalLM

    layers = getattr(config, "num_hidden_layers", 0)
    if type(layers) is int and layers > tensors:
        raise ValueError(f"its configuration has {layers} layers, but there are {tensors} tensors")
    with torch.device("meta"):  # which takes no memory
        build: Any = AutoModelForCausalLM.from_config
        empty = build(config, dtype=getattr(torch, dtype), trust_remote_code=False)
    asked = count_parameters(empty)
    if asked > 8 * size:
        raise ValueError(
            f"its configuration has {asked:,} parameters, but the weights are {size:,} bytes"
        )
    return empty


def empty_model(folder: Path, dtype: str) -> Any:
    """The model in `folder` on the device `meta`, without weights; `UserError` if it holds none."""
    from transformers import AutoConfig

    check_folder(folder)
    with loading(f"{folder} {NO_MODEL}"):
        config = AutoConfig.from_pretrained(folder, **ONLY)
        files = weight_files(folder)
        size = sum(path.stat().st_size for path in set(files.values()))
        return check_size(config, len(files), size, dtype)


@contextmanager
def loading(fault: str) -> Iterator[None]:
    """Raise `UserError` with `fault` and the reason; transformers raises whatever it trips over."""
    try:
        yield
    except Exception as error:
        if memory_fault(error):
            raise
        raise UserError(f"{fault}: {one_line(error)}") from error


def weight_files(folder: Path) -> dict[str, Path]:
    """The safetensors file that holds each tensor of a model folder: the only one, or a shard."""
    from safetensors import safe_open

    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if index.exists() and not whole.exists():
        shards = json.loads(index.read_bytes())["weight_map"]
        return {name: folder / shard for name, shard in shards.items()}
    with safe_open(whole, "pt") as weights:
        return dict.fromkeys(weights.keys(), whole)


def read_tensor(folder: Path, name: str, dtype: str) -> Any:
    """One tensor of a model folder, without the others; `UserError` where it has no such one."""
    import torch

    return torch.cat(list(tensor_parts(folder, name, dtype)))


def tensor_parts(folder: Path, name: str, dtype: str) -> Iterator[Any]:
    """The same in parts of its rows, of `PART` bytes at most, one part in memory at a time."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        path = weight_files(folder)[name]
        with safe_open(path, "pt") as weights:
            rows, *rest = weights.get_slice(name).get_shape()
        step = max(1, PART // (8 * math.prod(rest)))
        for start in range(0, rows, step):
            # Opened anew, for all that a mapping was ever used for counts as memory in use.
            with safe_open(path, "pt") as weights:
                part = weights.get_slice(name)[start : start + step].to(getattr(torch, dtype))
            yield part
            del part
    except (KeyError, OSError, SafetensorError) as error:
        raise UserError(
            f"the weights in {folder} lack {name} ({one_line(error)}); fetch them again"
        ) from error


def load_model(folder: Path, dtype: str, device: str, shards: Any = None) -> Any:
    """The causal language model in `folder`, in evaluation mode.

    `dtype` and `device` are torch's names, as `float32` and `cuda:0`; `shards` is a
    `DistributedConfig` of transformers, by which each rank reads its part. Raises `UserError`
    where transformers can load no model, or weights are lacking.
    """
    import torch
    from transformers import AutoModelForCausalLM

    empty_model(folder, dtype)
    with loading(f"{folder} {NO_MODEL}"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **ONLY | ({} if shards is None else {"distributed_config": shards}),
        )
    model, found = loaded
    check_missing(found, folder)
    try:
        return (model.to(device) if shards is None else model).eval()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"compute.device is {device!r}, where the model cannot be put: {one_line(error)}"
        ) from error


def check_missing(found: Any, source: Path) -> None:
    # transformers fills these with random numbers and goes on.
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UserError(
            f"the weights in {source} lack {', '.join(missing[:5])}{more}; fetch them again"
        )


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`; `UserError` where there is none that transformers can load."""
    from transformers import AutoTokenizer

    check_folder(folder)
    with loading(f"{folder} holds no tokenizer"):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, **ONLY)
        # Some faults show only here, as a `model_max_length` that is a text.
        tokens = tokenizer("a", add_special_tokens=False)["input_ids"]
        if not tokens or tokens[0] not in tokenizer("a")["input_ids"]:
            raise ValueError("it makes no token of the text 'a'")
        return tokenizer


def save_model(model: Any, tokenizer: Any, out: Path) -> None:
    """Write a model folder at `out` that `from_pretrained` loads with no code of this project.

    Every rank calls it, for a sharded model is gathered; the first writes.
    """
    whole = _whole(model) if getattr(model.config, "distributed_config", None) else None
    if not ranks.first():
        return
    with replacing(out) as beside:
        model.save_pretrained(beside, state_dict=whole)
        tokenizer.save_pretrained(beside)


def _whole(model: Any) -> dict[str, Any]:
    """The weights of a sharded model, as they are where it is not; on the first rank only."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(model, options=options)
    for name in model.all_tied_weights_keys:
        weights.pop(name, None)
    model.config.distributed_config = None  # says how it was held, and would be written
    return weights


def count_parameters(model: Any) -> int:
    """Parameters of the whole model; tied matrices count once."""
    return sum(parameter.numel() for parameter in model.parameters())
