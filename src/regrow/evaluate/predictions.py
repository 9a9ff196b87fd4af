"""What one model answered, as a parquet file: the log-probability of every choice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regrow.support.errors import UserError
from regrow.support.files import replacing

SPLITS = ("calibration", "test")
TRANSFER = "transfer."  # then the name of another task's set
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("answer", pa.int64(), nullable=False),
        pa.field("log_probs", pa.list_(pa.field("element", pa.float64())), nullable=False),
        pa.field("tokens", pa.list_(pa.field("element", pa.int64())), nullable=False),
        pa.field("characters", pa.list_(pa.field("element", pa.int64())), nullable=False),
    ]
)


@dataclass(frozen=True)
class Predictions:
    """One model's answers to n questions, which may differ in their number of choices.

    ids, splits: n strings; a split is one of `SPLITS`, or `TRANSFER` and a set's name.
    answers: n indices of the gold choices.
    log_probs: for each question, each choice's log-probability in nats, summed over its tokens.
    tokens, characters: for each question, each choice's length, without the leading space.
    parameters, mlp_parameters: how many the model has in all, and in its MLPs.
    """

    ids: Sequence[str]
    splits: Sequence[str]
    answers: Sequence[int]
    log_probs: Sequence[Sequence[float]]
    tokens: Sequence[Sequence[int]]
    characters: Sequence[Sequence[int]]
    parameters: int
    mlp_parameters: int

    def __len__(self) -> int:
        return len(self.ids)

    def of_split(self, split: str) -> "Predictions":
        """The questions of one split, in the same order."""
        rows = [row for row, name in enumerate(self.splits) if name == split]
        return Predictions(
            ids=[self.ids[row] for row in rows],
            splits=[self.splits[row] for row in rows],
            answers=[self.answers[row] for row in rows],
            log_probs=[self.log_probs[row] for row in rows],
            tokens=[self.tokens[row] for row in rows],
            characters=[self.characters[row] for row in rows],
            parameters=self.parameters,
            mlp_parameters=self.mlp_parameters,
        )


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write `predictions` as parquet; equal predictions give equal bytes.

    Raises `UserError` when they contradict themselves or hold a log-probability that is not a
    finite number, which is what a training that diverged leaves behind.
    """
    fault = next(_faults(predictions), None)
    if fault:
        raise UserError(f"{path} is not written: {fault}")
    columns = {
        "id": list(predictions.ids),
        "split": list(predictions.splits),
        "answer": [int(answer) for answer in predictions.answers],
        "log_probs": [[float(value) for value in row] for row in predictions.log_probs],
        "tokens": [[int(value) for value in row] for row in predictions.tokens],
        "characters": [[int(value) for value in row] for row in predictions.characters],
    }
    schema = SCHEMA.with_metadata(
        {
            "parameters": str(predictions.parameters),
            "mlp_parameters": str(predictions.mlp_parameters),
        }
    )
    table = pa.table(columns, schema=schema)
    with replacing(path) as beside:
        pq.write_table(
            table, beside, compression="zstd", use_dictionary=False, write_page_checksum=True
        )


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote; any other file is a `UserError` that names it."""
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; `dvc repro` makes it, or `dvc pull` gets it from a remote"
        )
    try:
        # Not pq.read_table: it would also open a folder, or take a file for part of a data set.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names not in UTF-8
        raise UserError(
            f"{path} is not a whole parquet file ({_first_line(error)}); "
            "delete it and run `dvc repro`"
        ) from None
    found = {field.name: str(field.type) for field in table.schema}
    wanted = {field.name: str(field.type) for field in SCHEMA}
    if found != wanted or len(table.schema) != len(SCHEMA):
        raise UserError(
            f"{path} does not hold predictions: its columns are {_columns(found)}, not "
            f"{_columns(wanted)}; delete it and run `dvc repro`"
        )
    metadata = table.schema.metadata or {}
    try:
        table.validate(full=True)
        columns = {name: table.column(name).to_pylist() for name in wanted}
        predictions = Predictions(
            ids=columns["id"],
            splits=columns["split"],
            answers=columns["answer"],
            log_probs=columns["log_probs"],
            tokens=columns["tokens"],
            characters=columns["characters"],
            parameters=int(metadata[b"parameters"]),
            mlp_parameters=int(metadata[b"mlp_parameters"]),
        )
        fault = next(_faults(predictions), None)
    except (AttributeError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        fault = f"a value is missing or of another type ({_first_line(error)})"
    if fault:
        raise UserError(f"{path} does not hold predictions: {fault}; delete it and run `dvc repro`")
    return predictions


def _faults(predictions: Predictions) -> Iterator[str]:
    """What contradicts itself, in words; those after the first may be its consequences."""
    size = len(predictions.ids)
    columns = ("splits", "answers", "log_probs", "tokens", "characters")
    for name in columns:
        if len(getattr(predictions, name)) != size:
            yield f"there are {size} ids but {len(getattr(predictions, name))} {name}"
    for name in ("parameters", "mlp_parameters"):
        if getattr(predictions, name) < 0:
            yield f"{name} is negative"
    if len(set(predictions.ids)) < size:
        yield "a question's id occurs twice"
    for row, question in enumerate(predictions.ids):
        log_probs = predictions.log_probs[row]
        choices = len(log_probs)
        split = predictions.splits[row]
        if split not in SPLITS and not split.startswith(TRANSFER):
            yield f"question {question} is of split {split!r}"
        if not 0 <= predictions.answers[row] < choices:
            yield (
                f"question {question} has {choices} choices and answer {predictions.answers[row]}"
            )
        for name in ("tokens", "characters"):
            lengths = getattr(predictions, name)[row]
            if len(lengths) != choices or min(lengths) < 1:
                yield f"question {question} has {choices} choices and {name} {list(lengths)}"
        if not np.isfinite(log_probs).all():
            yield (
                f"the model gives question {question} a log-probability that is not a finite "
                "number; its training diverged, so lower the learning rate"
            )


def _columns(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in types.items()) or "none"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
