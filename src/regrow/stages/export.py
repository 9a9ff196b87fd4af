"""Export a model folder to a GGUF file in F32."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.device.export import BLOCK, write_gguf
from regrow.device.runtime import describe, library
from regrow.device.tokens import source_pre_tokenizer
from regrow.support.files import write_json


def main(
    model: Annotated[Path, typer.Option(help="the model's folder")],
    out: Annotated[Path, typer.Option(help="GGUF file to write")],
    record: Annotated[Path, typer.Option(help="JSON file to write: size, hash and types")],
    base: Annotated[
        Path | None, typer.Option(help="the fetched model, which says what its source's GGUF said")
    ] = None,
    multiple_of: Annotated[int, typer.Option(help="pad MLPs to a multiple of this")] = BLOCK,
) -> None:
    """Write --model as a GGUF file that llama.cpp runs and quantises."""
    library()  # before anything is written: it describes the file
    write_gguf(model, out, "F32", multiple_of, source_pre_tokenizer(base) if base else None)
    write_json(record, {"format": "F32", **describe(out), "fallbacks": {}})
