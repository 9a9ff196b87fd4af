"""A model folder as a GGUF file, the format of llama.cpp, tensor by tensor."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from regrow.device.runtime import UNPADDED
from regrow.device.tokens import add_tokenizer
from regrow.support.errors import UserError
from regrow.support.files import in_form, read_json, replacing

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
BLOCK = 32  # values that Q4_0 and Q8_0 quantise together; K-quants take 256

Tensor = NDArray[Any]
Config = Mapping[str, Any]


def write_gguf(
    folder: Path,
    out: Path,
    dtype: Literal["F32", "F16"] = "F32",
    multiple_of: int = BLOCK,
    pre_tokenizer: str | None = None,
) -> None:
    """Write the model in `folder` as a GGUF file that llama.cpp runs.

    An MLP whose width is no multiple of `multiple_of` is padded with neurons of zeros, which add
    exactly nothing (silu(0) x 0 = 0), and the file says so under `UNPADDED`. One tensor is held in
    memory at a time.

    Args:
        folder: safetensors with their configuration and tokenizer.json.
        dtype: of the matrices; vectors are F32 in every GGUF file.
        multiple_of: 1 pads nothing.
        pre_tokenizer: llama.cpp's name for how the tokenizer splits a text into words, as a source
            in GGUF says it; None takes it from `tokens.PRE_TOKENIZERS`.

    Raises:
        UserError: the folder holds no such model, or what llama.cpp would run as another one.
    """
    config = _config(folder)
    architecture = ARCHITECTURES[config["model_type"]]
    width = config["intermediate_size"]
    padding = -width % multiple_of
    with replacing(out) as beside, ExitStack() as opened:
        writer = gguf.GGUFWriter(beside, gguf.MODEL_ARCH_NAMES[architecture])
        opened.callback(writer.close)
        _add_settings(writer, config, dtype, width + padding)
        if padding:
            writer.add_uint32(UNPADDED, width)
        add_tokenizer(writer, folder, config, pre_tokenizer)
        tensors = dict(_tensors(folder, config, opened))
        names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
        kinds = {}
        for name, (shape, _) in tensors.items():
            if (known := names.get_name(name, try_suffixes=(".weight", ".bias"))) is None:
                raise UserError(
                    f"{folder} holds the tensor {name}, which llama.cpp does not know in a "
                    f"{config['model_type']} model"
                )
            padded = _padded_shape(name, shape, padding)
            kinds[name] = np.dtype("f2" if dtype == "F16" and len(shape) > 1 else "f4")
            size = int(np.prod(padded)) * kinds[name].itemsize
            writer.add_tensor_info(known, padded, kinds[name], size)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, (shape, read) in tensors.items():
            values = _permuted(name, read(), config)
            more = np.subtract(_padded_shape(name, shape, padding), shape)
            ends = [(0, size) for size in more]
            writer.write_tensor_data(np.pad(values, ends).astype(kinds[name]))


def _config(folder: Path) -> Config:
    path, advice = folder / "config.json", "export a folder that holds a model"
    config = read_json(path, advice)
    with in_form(path, advice):
        kind = config["model_type"]
        for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"):
            if type(config[key]) is not int or config[key] < 1:
                raise ValueError(f"{key} is {config[key]!r}")
    if kind not in ARCHITECTURES:
        raise UserError(
            f"{folder} holds a model of the architecture {kind!r}; only "
            f"{', '.join(ARCHITECTURES)} can be exported to GGUF"
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for key, value, allowed in (
        ("rope_type", rope.get("rope_type", "default"), "default"),
        ("hidden_act", config.get("hidden_act", "silu"), "silu"),
        ("use_sliding_window", config.get("use_sliding_window", False), False),
        ("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0), 1.0),
    ):
        if value != allowed:
            raise UserError(
                f"{path}: {key} is {value!r}, and only a model with {allowed!r} can be exported to "
                "GGUF"
            )
    return config


def _add_settings(writer: Any, config: Config, dtype: str, width: int) -> None:
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or {}
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    kinds = {"F32": gguf.LlamaFileType.ALL_F32, "F16": gguf.LlamaFileType.MOSTLY_F16}
    writer.add_file_type(kinds[dtype])


def _tensors(folder: Path, config: Config, opened: ExitStack) -> Iterator[tuple[str, Any]]:
    """Each tensor's name, its shape and what reads it, in the order of the files."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise UserError(f"{folder} holds no *.safetensors, so there is nothing to export")
    for path in paths:
        try:
            file: Any = opened.enter_context(safe_open(path, "np"))
            names = file.keys()
            parts = {name: file.get_slice(name) for name in names}
            if any(part.get_dtype() == "BF16" for part in parts.values()):  # NumPy has none
                file = opened.enter_context(safe_open(path, "pt"))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is no whole safetensors file ({error})") from None
        tied = config.get("tie_word_embeddings")
        for name, part in parts.items():
            entry = tuple(part.get_shape()), partial(_values, file, name)
            if not (tied and name == "lm_head.weight"):
                yield name, entry
            if tied and name == "model.embed_tokens.weight" and config["model_type"] == "olmo2":
                yield "lm_head.weight", entry  # llama.cpp has no OLMo 2 without an output matrix


def _values(file: Any, name: str) -> Tensor:
    values = file.get_tensor(name)
    return np.asarray(values if isinstance(values, np.ndarray) else values.float().numpy())


def _padded_shape(name: str, shape: tuple[int, ...], padding: int) -> tuple[int, ...]:
    """Rows of `gate_proj` and `up_proj`, their biases, and columns of `down_proj` are neurons."""
    if ".gate_proj." in name or ".up_proj." in name:
        return (shape[0] + padding, *shape[1:])
    if name.endswith(".down_proj.weight"):
        return (shape[0], shape[1] + padding)
    return shape


def _permuted(name: str, values: Tensor, config: Config) -> Tensor:
    """Rows of Q and K as llama.cpp rotates them.

    For Llama it turns pairs of neighbours, where transformers turns the two halves of a head; for
    the other architectures both turn halves.
    """
    heads = {
        ".q_proj.": config["num_attention_heads"],
        ".k_proj.": config.get("num_key_value_heads") or config["num_attention_heads"],
    }
    for part, count in heads.items():
        if config["model_type"] == "llama" and part in name:
            halves = values.reshape(count, 2, -1, *values.shape[1:])
            return halves.swapaxes(1, 2).reshape(values.shape)
    return values
