"""A GGUF file or a folder of safetensors in, a model folder out."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from regrow.model.folders import ONLY, check_folder, check_missing, check_size, loading
from regrow.support.errors import UserError
from regrow.support.files import replacing, write_json

PRE_TOKENIZER = "tokenizer.ggml.pre"
# What a model folder may hold. Anything else stays behind: pickled weights and Python code above
# all.
PORTABLE = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


def import_model(source: Path, out: Path) -> None:
    """Turn a GGUF file or a folder of safetensors into a model folder at `out`.

    A GGUF file is de-quantised to float32; a folder's weights are copied as they are. Raises
    `UserError` where `source` is neither.
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
    paths = sorted({path for pattern in PORTABLE for path in source.glob(pattern)})
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is not a plain file; remove it from the model folder")
        if not _lies_in(path.resolve(), source.resolve()):
            raise UserError(
                f"{path} is a link that leads out of the model folder; put the file itself there"
            )
    check_folder(source)
    out.mkdir()
    for path in paths:
        shutil.copyfile(path, out / path.name)


def _lies_in(path: Path, folder: Path) -> bool:
    if path.is_relative_to(folder):
        return True
    # A snapshot in the cache of the hub's client is a folder of links to the files beside it.
    cached = folder.parent.name == "snapshots"
    return cached and path.is_relative_to(folder.parent.parent / "blobs")


def _convert_gguf(source: Path, out: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.integrations.gguf.reader import read_gguf_metadata

    # Alone in a folder: transformers would read a tokenizer_config.json beside the file as well.
    fault = f"{source} is no GGUF file that transformers can read"
    with TemporaryDirectory() as folder, loading(fault):
        (Path(folder) / source.name).symlink_to(source.resolve())
        # This reader stops at the file's end; the one for other architectures would go on.
        metadata, tensors = read_gguf_metadata(str(source))
        only = ONLY | {"gguf_file": source.name}
        config = AutoConfig.from_pretrained(folder, **only)
        check_size(config, len(tensors), source.stat().st_size)
        # A tokenizer keeps this option in its configuration, and so in every checkpoint; in a
        # folder of this machine it changes nothing else.
        tokenizer = AutoTokenizer.from_pretrained(folder, **only | {"local_files_only": False})
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **only
        )
    model, found = loaded
    check_missing(found, source)
    # The weights are de-quantised by now, but transformers would refuse to save a model that
    # still says it is quantised.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    # tokenizer.json cannot say it, and a GGUF file made of the model or its students needs it.
    if (name := metadata.get(PRE_TOKENIZER)) is not None:
        write_json(out / "gguf.json", {PRE_TOKENIZER: str(name)})
