"""Reading a record of the teacher's distributions, memory-mapped."""

import json
import math
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch

from regrow.distill.record import STATES, Column, Layout, hash_of_matrix
from regrow.model.forward import OutputLayer
from regrow.model.trees import Integers, Positions, Tree
from regrow.support.errors import UserError


class Targets(NamedTuple):
    """The teacher's distributions at some rows, at one temperature."""

    log_probs: torch.Tensor  # [rows, vocabulary] float32
    temperature: float  # what these, and the student's logits, are softened by


class Record:
    """A record folder, opened for reading; rows are read from disk as they are asked for.

    Raises `UserError` where it is no record, or one of another teacher than `output` gives.
    """

    def __init__(self, folder: Path, output: Callable[[], OutputLayer]) -> None:
        try:
            self.layout = Layout(**json.loads((folder / "record.json").read_text("utf-8")))
            _check_layout(self.layout)
            ids = json.loads((folder / "ids.json").read_text("utf-8"))
            if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
                raise ValueError("ids.json holds no list of texts")
            self._columns = {
                name: _mapped(folder / f"{name}.npy", column)
                for name, column in self.layout.columns(len(ids)).items()
            }
            _check_offsets(self._columns["offsets"], self.layout.rows)
        except (
            *(OSError, ValueError, TypeError, RecursionError),
            *(EOFError, SyntaxError, tokenize.TokenError),  # of what NumPy takes for a header
        ) as error:
            raise UserError(
                f"{folder} is no whole record of teacher logits ({error}); run the stage "
                "teacher_logits again"
            ) from error
        self._places = {identity: place for place, identity in enumerate(ids)}
        self._folder = folder
        self._output = output()
        linear, shape = self._output.linear, (self.layout.vocabulary, self.layout.hidden)
        if tuple(linear.weight.shape) != shape or hash_of_matrix(linear) != self.layout.output:
            raise UserError(
                f"{folder} was not made with this teacher's output matrix; give --teacher the "
                "model that it was made with, or run the stage teacher_logits again"
            )

    def check(self, ids: Sequence[str], trees: Sequence[Tree]) -> None:
        """Compare the recorded tokens with those of `trees`; `UserError` where they are others."""
        for identity, tree in zip(ids, trees, strict=True):
            if identity not in self._places:
                raise UserError(f"{self._folder} holds no question {identity}; record it again")
            tokens, _, _ = tree.inputs()
            rows = tree.rows(self.layout.positions)
            recorded = self._columns["nodes"][self.rows(identity)]
            if not np.array_equal(recorded, tokens[rows.start :]):
                raise UserError(
                    f"{self._folder} holds question {identity} in other tokens than the student "
                    "reads; record it again with the student's tokenizer and prompt.format"
                )

    def rows(self, identity: str) -> Integers:
        """Where in the record a question's rows lie, in the order of `Tree.rows`: [n]."""
        place = self._places[identity]
        start, stop = self._columns["offsets"][place : place + 2]
        return np.arange(start, stop)

    def targets(self, rows: Integers, temperature: float) -> Targets:
        """The teacher's distributions at `rows`, softened by `temperature`."""
        weight = self._output.linear.weight
        states = torch.from_numpy(self._columns["states"][rows])
        if weight.dtype == torch.bfloat16:
            states = states.view(torch.bfloat16)
        with torch.no_grad():
            logits = self._output(states.to(weight.device)).float()
            return Targets((logits / temperature).log_softmax(-1), temperature)


def _check_layout(layout: Layout) -> None:
    """Raise `ValueError` at a value that `record` does not write."""
    numbers: list[Any] = [layout.vocabulary, layout.rows, layout.hidden]
    if not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError("record.json: hidden, vocabulary and rows must be numbers above 0")
    if not (isinstance(layout.dtype, str) and layout.dtype in STATES):
        raise ValueError(f"record.json: dtype is {layout.dtype!r}, not one of {', '.join(STATES)}")
    if layout.positions not in get_args(Positions):
        raise ValueError(f"record.json: positions is {layout.positions!r}")


def _mapped(path: Path, column: Column) -> npt.NDArray[Any]:
    """A column's file, mapped into memory once its header says what it has to.

    Not by `np.load`, which maps what the header says: a type of no size ends the process there.
    """
    dtype, shape = column
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{path.name} is of another version, {version}")
        found, by_columns, kind = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    if found[:1] != shape[:1]:
        raise ValueError(f"{path.name} has {found[0] if found else 'no'} rows, not {shape[0]}")
    if found != shape or kind != np.dtype(dtype) or by_columns:
        wanted = f"{np.dtype(dtype)} of shape {shape}"
        raise ValueError(f"{path.name} holds {kind} of shape {found}, not {wanted}")
    missing = start + np.dtype(dtype).itemsize * math.prod(shape) - path.stat().st_size
    if missing > 0:
        raise ValueError(f"{path.name} lacks its last {missing} bytes")
    return np.memmap(path, dtype, "r", start, shape)


def _check_offsets(offsets: npt.NDArray[Any], rows: int) -> None:
    if offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets.npy does not lead from 0 to {rows}")
