"""Export a model folder to a GGUF file in F32."""

from pathlib import Path

from regrow.device.export import BLOCK, write_gguf
from regrow.device.runtime import describe, library
from regrow.device.tokens import source_pre_tokenizer
from regrow.support.files import write_json


def main(
    model: Path, out: Path, record: Path, base: Path | None = None, multiple_of: int = BLOCK
) -> None:
    """Write --model as a GGUF file that llama.cpp runs and quantises.

    Args:
        record: JSON file to write: size, hash and types.
        base: the fetched model, which says what its source's GGUF file said.
        multiple_of: what MLPs are padded to a multiple of.
    """
    library()  # before anything is written: it describes the file
    write_gguf(model, out, "F32", multiple_of, source_pre_tokenizer(base) if base else None)
    write_json(record, {"format": "F32", **describe(out), "fallbacks": {}})
