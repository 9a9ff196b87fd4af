"""What one model answered, as a parquet file: the log-probability of every choice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regrow.support.errors import UserError, one_line
from regrow.support.files import replacing

SPLITS = ("calibration", "test")
TRANSFER = "transfer."  # then the name of another task's set
_FLOATS = pa.list_(pa.field("element", pa.float64()))
_INTEGERS = pa.list_(pa.field("element", pa.int64()))
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("answer", pa.int64(), nullable=False),
        pa.field("log_probs", _FLOATS, nullable=False),
        pa.field("tokens", _INTEGERS, nullable=False),
        pa.field("characters", _INTEGERS, nullable=False),
    ]
)
# The fields of `Predictions`: the file's columns in their order, and what its notes hold.
FIELDS = ("ids", "splits", "answers", "log_probs", "tokens", "characters")
COUNTS = ("parameters", "mlp_parameters")


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

    def of_split(self, *splits: str) -> "Predictions":
        """The questions of one split, or of several, in the same order."""
        rows = [row for row, name in enumerate(self.splits) if name in splits]
        columns: Any = {name: [getattr(self, name)[row] for row in rows] for name in FIELDS}
        return replace(self, **columns)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write `predictions` as parquet; equal predictions give equal bytes.

    Raises `UserError` when they contradict themselves or hold a log-probability that is not a
    finite number, which is what a training that diverged leaves behind.
    """
    fault = next(_faults(predictions), None)
    if fault:
        raise UserError(f"{path} is not written: {fault}")
    columns = [list(getattr(predictions, name)) for name in FIELDS]
    notes = {name: str(getattr(predictions, name)) for name in COUNTS}
    named = dict(zip(SCHEMA.names, columns, strict=True))
    table = pa.table(named, schema=SCHEMA.with_metadata(notes))
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
            f"{path} is not a whole parquet file ({one_line(error)}); delete it and run `dvc repro`"
        ) from None
    schemas = (table.schema, SCHEMA)
    found, wanted = ([f"{field.name} {field.type}" for field in schema] for schema in schemas)
    if found != wanted:
        raise UserError(
            f"{path} does not hold predictions: its columns are {', '.join(found) or 'none'}, not "
            f"{', '.join(wanted)}; delete it and run `dvc repro`"
        )
    notes = table.schema.metadata or {}
    try:
        table.validate(full=True)
        columns = [table.column(name).to_pylist() for name in SCHEMA.names]
        predictions = Predictions(*columns, *(int(notes[name.encode()]) for name in COUNTS))
        fault = next(_faults(predictions), None)
    except (AttributeError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        fault = f"a value is missing or of another type ({one_line(error)})"
    if fault:
        raise UserError(f"{path} does not hold predictions: {fault}; delete it and run `dvc repro`")
    return predictions


def _faults(predictions: Predictions) -> Iterator[str]:
    """What contradicts itself, in words; those after the first may be its consequences."""
    size = len(predictions.ids)
    for name in FIELDS:
        if len(getattr(predictions, name)) != size:
            yield f"there are {size} ids but {len(getattr(predictions, name))} {name}"
    for name in COUNTS:
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
