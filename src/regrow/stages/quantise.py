"""Quantise a GGUF file by llama.cpp's own function."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.device.runtime import check_recorded, describe, quantise
from regrow.support.files import write_json


def main(
    source: Annotated[Path, typer.Option(help="the F32 file")],
    source_record: Annotated[Path, typer.Option(help="its record")],
    form: Annotated[str, typer.Option("--format", help="such as Q8_0, Q4_0 or Q4_0-pure")],
    embeddings: Annotated[str, typer.Option(help="type of embeddings and output matrix")],
    out: Annotated[Path, typer.Option(help="GGUF file to write")],
    record: Annotated[Path, typer.Option(help="JSON file to write: size, hash and types")],
) -> None:
    """Quantise --source; tensors that fall back to another type are named and counted."""
    check_recorded(source, source_record)
    fallbacks = quantise(source, out, form, embeddings)
    write_json(record, {"format": form, **describe(out), "fallbacks": fallbacks})
