"""Model folders: GGUF or safetensors in, safetensors out."""

import shutil
from pathlib import Path
from typing import Any

from regrow.errors import UserError, memory_fault
from regrow.files import replacing

# What a model folder may hold. Anything else stays behind: pickled weights and Python code above
# all.
PORTABLE = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


def import_model(source: Path, out: Path) -> None:
    """Turn a GGUF file or a folder of safetensors into a model folder at `out`.

    A GGUF file is de-quantised to float32; a folder's weights are copied as they are.

    Raises:
        UserError: `source` is neither, or a folder without `config.json` or safetensors.
    """
    with replacing(out) as beside:
        if source.is_dir():
            _copy_folder(source, beside)
        elif source.suffix == ".gguf":
            _convert_gguf(source, beside)
        else:
            raise UserError(f"{source} is no model: give a .gguf file or a folder of safetensors")


def _copy_folder(source: Path, out: Path) -> None:
    for required in ("config.json", "*.safetensors"):
        if not any(source.glob(required)):
            raise UserError(
                f"{source} holds no {required}: a model folder needs config.json, a tokenizer and "
                "safetensors weights (pickled weights are never read)"
            )
    out.mkdir()
    for path in sorted({path for pattern in PORTABLE for path in source.glob(pattern)}):
        shutil.copyfile(path, out / path.name)


def _convert_gguf(source: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32
        )
    except Exception as error:  # the reader raises whatever it trips over in a broken file
        if memory_fault(error):
            raise
        raise UserError(
            f"{source} is no GGUF file that transformers can read: {_one_line(error)}"
        ) from error
    # The weights are de-quantised by now, but transformers would refuse to save a model that
    # still says it is quantised.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def load_model(folder: Path, dtype: str, device: str) -> Any:
    """The causal language model in `folder`, in evaluation mode.

    Args:
        folder: a model folder.
        dtype: a torch dtype by name, as `float32`.
        device: a torch device, as `cpu` or `cuda:0`.

    Raises:
        UserError: the folder holds no model that transformers can load, or lacks weights.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if memory_fault(error):
            raise
        raise UserError(
            f"{folder} holds no model that transformers can load: {_one_line(error)}"
        ) from error
    model, loading = loaded
    # transformers fills these with random numbers and goes on.
    if missing := sorted(loading["missing_keys"]):
        raise UserError(f"the weights in {folder} lack {', '.join(missing)}; fetch them again")
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`.

    Raises:
        UserError: there is none that transformers can load.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no tokenizer: {_one_line(error)}") from error


def save_model(model: Any, tokenizer: Any, out: Path) -> None:
    """Write a model folder at `out` that `from_pretrained` loads with no code of this project."""
    with replacing(out) as beside:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)


def count_parameters(model: Any) -> int:
    """Parameters of the whole model; tied matrices count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
