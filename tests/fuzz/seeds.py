"""Small valid inputs, made by the project's own writers: what the fuzzers start from.

Run as a script, it writes them into `corpus/`, where they are kept.
"""

import io
import json
import math
import shutil
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS))  # where the tiny models are

CORPUS = Path(__file__).parent / "corpus"
MEMBER = "demo/data.jsonl"
ROWS: list[dict[str, Any]] = [
    {
        "id": f"q{number}",
        "stem": f"Where is thing {number}?",
        "choices": ["shelf", "sea", "warm roof"][: 2 + number % 2],
        "answer": number % 2,
    }
    for number in range(4)
]


@cache
def _scratch() -> TemporaryDirectory[str]:
    return TemporaryDirectory()


def _once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once a process."""
    folder = Path(_scratch().name) / name
    if not folder.exists():
        make(folder)
    return folder


def write_model(folder: Path) -> None:
    """A folder of a tiny Llama whose weights lie in two files."""
    shutil.copytree(_once("model", _make_model), folder)


def _make_model(folder: Path) -> None:
    from tiny_models import tiny_config, tiny_model, tiny_tokenizer

    config = tiny_config("llama", hidden_size=8, intermediate_size=8, num_hidden_layers=1)
    tiny_model(config).save_pretrained(folder, max_shard_size="10KB")
    tiny_tokenizer().save_pretrained(folder)


def write_record(folder: Path) -> None:
    """A record of a tiny teacher."""
    shutil.copytree(_once("record", _make_record), folder)


def _make_record(folder: Path) -> None:
    from regrow.distill.writer import record
    from regrow.support.resume import Unfinished
    from tiny_models import tiny_config, tiny_model

    with TemporaryDirectory() as scratch:
        state = Unfinished(Path(scratch), math.inf)
        teacher = tiny_model(tiny_config("llama"))
        record(teacher, record_ids(), record_trees(), "answer", folder, state)


@cache
def record_output() -> Any:
    """The teacher's output layer."""
    from regrow.model.forward import output_layer
    from tiny_models import tiny_config, tiny_model

    return output_layer(tiny_model(tiny_config("llama")))


def record_ids() -> list[str]:
    """The questions of the record."""
    return [question.id for question in _asked()]


@cache
def record_trees() -> Any:
    """Their trees."""
    from regrow.model.trees import build_trees
    from tiny_models import tiny_tokenizer

    return build_trees(tiny_tokenizer(), _asked(), "cloze")


@cache
def _asked() -> Any:
    from tiny_models import QUESTIONS

    return QUESTIONS[:2]


def gguf_bytes() -> bytes:
    """A GGUF file of a tiny Llama with a tokenizer of bytes."""
    path = Path(_scratch().name) / "seed.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_embedding_length(4)
    writer.add_feed_forward_length(4)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(4)
    writer.add_rope_freq_base(10000.0)
    tokens = ["<s>", "</s>", "a", "b", "ab", "c"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * 4)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (6, 4), "output_norm": (4,)}
    shapes |= {f"blk.0.{name}": (4, 4) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    shapes |= {f"blk.0.ffn_{name}": (4, 4) for name in ("gate", "up", "down")}
    shapes |= {f"blk.0.{name}_norm": (4,) for name in ("attn", "ffn")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def tables() -> dict[str, pa.Table]:
    """Data sets in columns, of three layouts."""
    pairs = [
        {
            "id": row["id"],
            "question": row["stem"],
            "choices": {"label": list("ABC"[: len(row["choices"])]), "text": row["choices"]},
            "answerKey": "AB"[row["answer"]],
        }
        for row in ROWS
    ]
    piqa = [{"goal": "dresser", "sol1": "one", "sol2": "two", "label": label} for label in (0, 1)]
    return {
        "own": pa.Table.from_pylist(ROWS),
        "commonsenseqa": pa.Table.from_pylist(pairs),
        "piqa": pa.Table.from_pylist(piqa),
    }


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """A table as parquet."""
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def arrow_bytes(table: pa.Table) -> bytes:
    """A table as a stream of record batches."""
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=2)
    return file.getvalue()


def _predictions() -> bytes:
    from regrow.evaluate.predictions import Predictions, write_predictions

    path = Path(_scratch().name) / "seed.parquet"
    write_predictions(
        path,
        Predictions(
            ids=["a", "b"],
            splits=["calibration", "test"],
            answers=[1, 0],
            log_probs=[[-1.5, -0.5], [-3.0, -4.0, -1.0]],
            tokens=[[1, 2], [1, 1, 3]],
            characters=[[4, 8], [3, 2, 12]],
            parameters=1000,
            mlp_parameters=500,
        ),
    )
    return path.read_bytes()


def _wheel() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(MEMBER), json.dumps(ROWS[0]) + "\n")
        archive.writestr(zipfile.ZipInfo("demo-1.0.dist-info/RECORD"), "")
    return file.getvalue()


def _params() -> bytes:
    from conftest import PARAMS

    values = PARAMS | {
        "model": {"source": "hf:org/name@main", "sha256": "0" * 64},
        "data": PARAMS["data"] | {"source": "file:a.jsonl"},
        "evaluate": {
            "transfer": {
                "piqa": {"source": "file:b.jsonl", "sha256": None, "columns": None, "questions": 5}
            }
        },
    }
    return yaml.safe_dump(values).encode()


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _files(write: Callable[[Path], None]) -> dict[str, bytes]:
    """The files of a folder as inputs: their names on a line in front."""
    folder = Path(_scratch().name) / f"files of {write.__name__}"
    write(folder)
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    shutil.rmtree(folder)
    return {name: name.encode() + b"\n" + content for name, content in found.items()}


def seeds() -> dict[str, dict[str, bytes]]:
    """For each reader, valid inputs by name."""
    columns = tables()
    uris = ("file:a.jsonl", "file:/b/c.gguf", "pypi:n==1/../a", "hf:o/n@main/../a", "")
    return {
        "params": {"whole": _params()},
        "controls": {"csqa-full": (TESTS.parent / "results/csqa-full/controls.yaml").read_bytes()},
        "jsonl": {name: _jsonl(table.to_pylist()) for name, table in columns.items()},
        "split": {"whole": _jsonl(ROWS)},
        "parquet": {
            **{name: parquet_bytes(table) for name, table in columns.items()},
            "plain": parquet_bytes(columns["own"], compression="none", use_dictionary=False),
        },
        "arrow": {name: arrow_bytes(table) for name, table in columns.items()},
        "predictions": {"whole": _predictions()},
        "uri": {str(number): uri.encode() for number, uri in enumerate(uris)},
        "wheel": {"whole": _wheel()},
        "gguf": {"llama": gguf_bytes()},
        "model": _files(write_model),
        "record": _files(write_record),
    }


if __name__ == "__main__":
    for reader, found in seeds().items():
        (CORPUS / reader).mkdir(parents=True, exist_ok=True)
        for name, content in found.items():
            (CORPUS / reader / f"seed-{name}").write_bytes(content)
            print(f"{reader}/seed-{name}: {len(content):,} bytes")
