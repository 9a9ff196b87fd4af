"""llama.cpp, through the package cyllama: opening, quantising and scoring, all settings pinned."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrow.support.errors import UserError
from regrow.support.files import file_hash, read_json, replacing

F32 = 0  # ggml_type
FORMATS = (
    *("F16", "Q4_0", "Q4_1", "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_S", "Q4_K_M"),
    *("Q5_K_M", "Q6_K", "IQ4_NL", "IQ4_XS"),
)
"""Those that llama.cpp quantises to without further data."""
PURE = "-pure"
"""Behind a format's name: the embeddings and the output matrix are of that type too."""
EMBEDDINGS = ("F16", "Q8_0")
"""Of which type they are else: pinned, where llama.cpp's own choice (Q6_K for most
formats) falls back to another at sizes that are no multiple of 256."""
FALLS_BACK = "-> falling back to"
UNPADDED = "regrow.feed_forward_length.unpadded"
"""The key under which a padded file holds the width of the model that it was made from."""

_said: list[str] = []  # what llama.cpp logged since `_heard`


def library() -> Any:
    """llama.cpp's binding; a `UserError` says what to install where it is missing."""
    # Waiting threads sleep: on a busy machine two that spin decode forty times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from cyllama.llama import llama_cpp
    except ImportError:
        raise UserError(
            "the runtime llama.cpp is not installed; `make edge` installs it, as does "
            "`python -m pip install -c constraints.txt cyllama`"
        ) from None
    llama_cpp.set_log_callback(lambda _, text: _said.append(text))
    llama_cpp.llama_backend_init()
    return llama_cpp


def _heard() -> list[str]:
    """The lines that llama.cpp logged since the last call."""
    lines = "".join(_said).splitlines()
    _said.clear()
    return lines


def describe(path: Path) -> dict[str, Any]:
    """What is recorded of a GGUF file: `bytes`, `sha256`, how many `tensors`, and of each type.

    `layout` is a hash of the architecture and of the tensors' names, sizes and types: files that
    share it differ in their numbers alone, so that a machine runs them at the same speed.
    `unpadded` is the width of the model's MLPs before they were padded, or None.

    Raises:
        UserError: the file is no whole GGUF file.
    """
    from gguf import GGMLQuantizationType

    check_magic(path)
    try:
        header = library().GGUFContext.from_file(str(path))
        known = header.get_all_tensor_info()
        types = [GGMLQuantizationType(tensor["type"]).name for tensor in known]
    except Exception as error:
        raise UserError(f"{path} is no whole GGUF file ({_why(error)}); make it again") from None
    names = range(header.n_tensors)
    ends = [header.get_tensor_offset(i) + header.get_tensor_size(i) for i in names]
    if path.stat().st_size < header.data_offset + max(ends, default=0):
        raise UserError(f"{path} is truncated; make it again")
    layout = [(t["name"], t["size"], t["type"]) for t in known]
    metadata = header.get_all_metadata()
    text = json.dumps([metadata.get("general.architecture"), layout])
    return {
        "bytes": path.stat().st_size,
        "sha256": file_hash(path),
        "layout": hashlib.sha256(text.encode()).hexdigest()[:16],
        "unpadded": metadata.get(UNPADDED),
        "tensors": len(known),
        "types": {kind: types.count(kind) for kind in sorted(set(types))},
    }


def check_magic(path: Path) -> None:
    """Raise `UserError` unless the file begins as a GGUF file does."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); `make edge` makes it") from None
    if magic != b"GGUF":
        raise UserError(f"{path} is no GGUF file: it begins with {magic!r}; make it again")


def check_recorded(path: Path, record: Path) -> dict[str, Any]:
    """What `record` holds; a `UserError` unless it describes `path`, to the byte."""
    check_magic(path)
    described = read_json(record, "`make edge` makes it")
    if (found := file_hash(path)) != (wanted := described.get("sha256")):
        raise UserError(
            f"{path} is not the file that {record} describes (its SHA-256 is {found[:12]}…, not "
            f"{str(wanted)[:12]}…): it is truncated, altered or another model's; make it again"
        )
    return described


def quantise(source: Path, out: Path, form: str, embeddings: str = "Q8_0") -> dict[str, str]:
    """Quantise an F32 or F16 file by llama.cpp's own function.

    form: a name of `FORMATS`, or one with `PURE` behind it. embeddings: a name of `EMBEDDINGS`; not
    read for a pure format. Returns the tensors that fell back to another type, each with
    llama.cpp's words; they are printed too.

    Raises:
        UserError: there is no such format, a width does not fit it, or the file is broken.
    """
    from gguf import GGMLQuantizationType, LlamaFileType

    name, pure = form.removesuffix(PURE), form.endswith(PURE)
    if name not in FORMATS or embeddings not in EMBEDDINGS:
        raise UserError(
            f"the format {form!r} with embeddings of {embeddings!r} is none of "
            f"{', '.join(FORMATS)} (or one with {PURE} behind it) and {', '.join(EMBEDDINGS)}"
        )
    check_magic(source)
    llama = library()
    settings = llama.LlamaModelQuantizeParams()
    settings.ftype = LlamaFileType[f"MOSTLY_{name}"].value
    settings.nthread, settings.pure = 2, pure
    if not pure:
        kind = GGMLQuantizationType[embeddings].value
        settings.output_tensor_type = settings.token_embedding_type = kind
    with replacing(out) as beside:
        _heard()
        try:
            llama.model_quantize(str(source), str(beside), settings)
        except Exception as error:
            raise UserError(
                f"{source} cannot be quantised to {form}: {_why(error)}; a width that does not fit "
                "is padded by `export --multiple-of`"
            ) from None
        lines = _heard()
    fallbacks = {}
    for line in lines:
        if FALLS_BACK in line:
            tensor, _, words = line.removeprefix("warning:").partition(" - ")
            fallbacks[tensor.strip()] = " ".join(words.split())
    summary = [line for line in lines if "required fallback" in line]
    if bool(summary) != bool(fallbacks):
        raise RuntimeError(f"llama.cpp counts fallbacks that it does not name: {summary}")
    for tensor, words in fallbacks.items():
        print(f"{out.name}: {tensor} falls back: {words}")
    if fallbacks:
        print(f"{out.name}: {len(fallbacks)} tensors fell back to another type.", flush=True)
    return fallbacks


def _why(error: Exception) -> str:
    """The reason that llama.cpp logged, or else the binding's."""
    lines = _heard()
    reasons = [line for line in lines if "not divisible" in line or "rror" in line] or [
        line for line in lines if "fail" in line
    ]
    return " ".join((reasons[0] if reasons else str(error)).split())[:300]


def open_model(path: Path) -> Any:
    """llama.cpp's model of a GGUF file, on the CPU, its file mapped into memory.

    Raises:
        UserError: llama.cpp cannot load it.
    """
    check_magic(path)
    llama = library()

    # cyllama is optional, so that nothing is known of its classes.
    class Model(llama.LlamaModel):  # type: ignore[misc, name-defined]
        # cyllama 0.2.18: a context's `get_logits_ith` asks its model for this, which it lacks.
        @property
        def n_vocab(self) -> int:
            return int(self.get_vocab().n_vocab)

    settings = llama.LlamaModelParams()
    settings.n_gpu_layers, settings.use_mmap, settings.use_extra_bufts = 0, True, True
    _heard()
    try:
        return Model(str(path), settings, verbose=False)
    except Exception as error:
        raise UserError(f"llama.cpp cannot load {path}: {_why(error)}; make it again") from None


def new_context(model: Any, threads: int, tokens: int, sequences: int = 1) -> Any:
    """A context in which `tokens` positions are decoded at once, for up to so many `sequences`.

    Quantised scores hang on these settings, so all are pinned: keys and values in F32, no flash
    attention, no batch split.
    """
    llama = library()
    settings = llama.LlamaContextParams()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = tokens
    settings.n_threads = settings.n_threads_batch = threads
    settings.n_seq_max, settings.kv_unified = sequences, True
    settings.type_k = settings.type_v = F32
    settings.flash_attn_type = 0
    return llama.LlamaContext(model, settings, verbose=False)


Row = tuple[int, int, Sequence[int], bool]
"""A token, its position, the sequences that it belongs to, and whether its logits are read."""


def decode(context: Any, rows: Sequence[Row], sequences: int = 1) -> Callable[[int], Any]:
    """Run rows through the model; give what returns the log-probabilities of a row [vocabulary]."""
    batch = library().LlamaBatch(n_tokens=len(rows), embd=0, n_seq_max=sequences)
    for row in rows:
        batch.add(*row)
    context.decode(batch)

    def log_probs(row: int) -> NDArray[np.float64]:
        logits = np.array(context.get_logits_ith(row), dtype=np.float64)
        logits -= logits.max()
        return np.asarray(logits - np.log(np.exp(logits).sum()))

    return log_probs
