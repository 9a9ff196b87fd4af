"""Quantise a GGUF file by llama.cpp's own function."""

from pathlib import Path

from regrow.device.runtime import check_recorded, describe, quantise
from regrow.support.files import write_json


def main(
    source: Path, source_record: Path, format: str, embeddings: str, out: Path, record: Path
) -> None:
    """Quantise --source, in F32; tensors that fall back to another type are named and counted.

    Args:
        format: such as Q8_0, Q4_0 or Q4_0-pure.
        embeddings: type of embeddings and output matrix.
        record: JSON file to write: size, hash and types.
    """
    check_recorded(source, source_record)
    fallbacks = quantise(source, out, format, embeddings)
    write_json(record, {"format": format, **describe(out), "fallbacks": fallbacks})
