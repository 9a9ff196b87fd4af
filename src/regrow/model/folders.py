"""Model folders: loading and saving models and tokenizers, with no code or pickle of others."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regrow.support import ranks
from regrow.support.errors import UserError, memory_fault
from regrow.support.files import replacing


def check_folder(folder: Path) -> None:
    """Refuse a folder whose JSON files name others outside it, or code.

    `from_pretrained` takes these values for paths as they are; what lies elsewhere on the machine
    is no part of the model.

    Raises:
        UserError: it does, or a file of it is no JSON.
    """
    for path in sorted(folder.glob("*.json")):
        if path.name in ("config.json", "tokenizer_config.json") or ".index." in path.name:
            try:
                values = json.loads(path.read_bytes())
            except (OSError, ValueError, RecursionError) as error:
                raise UserError(
                    f"{folder} holds no model: {path.name} is not JSON ({one_line(error)})"
                ) from None
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


def check_size(config: Any, tensors: int, size: int) -> None:
    """Compare what a configuration asks for with the weights there are, in number and in bytes.

    transformers makes the whole model, and fills with random numbers what the weights lack, before
    it says so: a few bytes could ask for all of the memory.

    Raises:
        ValueError: a layer would have no tensor, or a parameter less than a bit.
    """
    import torch
    from transformers import AutoModelForCausalLM

    layers = getattr(config, "num_hidden_layers", 0)
    if type(layers) is int and layers > tensors:
        raise ValueError(f"its configuration has {layers} layers, but there are {tensors} tensors")
    with torch.device("meta"):  # which takes no memory
        build: Any = AutoModelForCausalLM.from_config
        asked = count_parameters(build(config, trust_remote_code=False))
    if asked > 8 * size:
        raise ValueError(
            f"its configuration has {asked:,} parameters, but the weights are {size:,} bytes"
        )


def load_model(folder: Path, dtype: str, device: str, shards: Any = None) -> Any:
    """The causal language model in `folder`, in evaluation mode.

    Args:
        folder: a model folder.
        dtype: a torch dtype by name, as `float32`.
        device: a torch device, as `cpu` or `cuda:0`.
        shards: a `DistributedConfig` of transformers, by which each rank reads its part.

    Raises:
        UserError: the folder holds no model that transformers can load, or lacks weights.
    """
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    check_folder(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tensors = size = 0
        for path in folder.glob("*.safetensors"):
            size += path.stat().st_size
            with safe_open(path, "np") as weights:
                tensors += len(weights.keys())
        check_size(config, tensors, size)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **({} if shards is None else {"distributed_config": shards}),
        )
    except Exception as error:  # transformers raises whatever it trips over in a configuration
        if memory_fault(error):
            raise
        raise UserError(
            f"{folder} holds no model that transformers can load: {one_line(error)}"
        ) from error
    model, loading = loaded
    check_missing(loading, folder)
    try:
        return (model.to(device) if shards is None else model).eval()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"compute.device is {device!r}, where the model cannot be put: {one_line(error)}"
        ) from error


def check_missing(loading: Any, source: Path) -> None:
    # transformers fills these with random numbers and goes on.
    if missing := sorted(loading["missing_keys"]):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UserError(
            f"the weights in {source} lack {', '.join(missing[:5])}{more}; fetch them again"
        )


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`.

    Raises:
        UserError: there is none that transformers can load.
    """
    from transformers import AutoTokenizer

    check_folder(folder)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        # Some faults show only here, as a `model_max_length` that is a text.
        tokens = tokenizer("a", add_special_tokens=False)["input_ids"]
        if not tokens or tokens[0] not in tokenizer("a")["input_ids"]:
            raise ValueError("it makes no token of the text 'a'")
        return tokenizer
    except Exception as error:  # as for models; tokenizers raises Exception itself
        raise UserError(f"{folder} holds no tokenizer: {one_line(error)}") from error


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


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
