"""Reading a record of the teacher's distributions, memory-mapped."""

import json
import math
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch

from regrow.distill.record import STATES, Column, Layout, hash_of_matrix
from regrow.model.forward import OutputLayer
from regrow.model.trees import Integers, Positions, Tree
from regrow.support.errors import UserError


@dataclass(frozen=True, slots=True)
class Targets:
    """The teacher's distributions at some rows, at one temperature.

    Attributes:
        log_probs: [rows, k] (or [rows, vocabulary] if whole) float32.
        tokens: [rows, k] int64, or none if whole.
        log_tail: [rows] float32, the log of the other tokens' mass, or none if whole.
        temperature: what all of these, and the student's logits, are softened by.
    """

    log_probs: torch.Tensor
    tokens: torch.Tensor | None
    log_tail: torch.Tensor | None
    temperature: float

    def to(self, device: torch.device) -> "Targets":
        """The same distributions on another device."""
        return Targets(
            self.log_probs.to(device),
            None if self.tokens is None else self.tokens.to(device),
            None if self.log_tail is None else self.log_tail.to(device),
            self.temperature,
        )


class Record:
    """A record folder, opened for reading; rows are read from disk as they are asked for.

    Args:
        folder: the record's.
        output: gives the teacher's output layer; asked by a whole record alone.

    Raises:
        UserError: the folder holds no record, or one of another teacher than `output` is of.
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
        self._output = output() if self.layout.top_k is None else None
        if self._output and not self._is_of(self._output.linear):
            raise UserError(
                f"{folder} was not made with this teacher's output matrix; give --teacher the "
                "model that it was made with, or run the stage teacher_logits again"
            )

    def _is_of(self, linear: Any) -> bool:
        shape = (self.layout.vocabulary, self.layout.hidden)
        return tuple(linear.weight.shape) == shape and hash_of_matrix(linear) == self.layout.output

    def check(self, ids: Sequence[str], trees: Sequence[Tree]) -> None:
        """Compare the recorded tokens with those of `trees`.

        Raises:
            UserError: a question is not in the record, or was tokenised otherwise.
        """
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
        """The teacher's distributions at `rows`.

        Raises:
            UserError: a top-k record that was not made with this temperature.
        """
        if self._output is not None:
            return self._whole(self._output, rows, temperature)
        if temperature not in self.layout.temperatures:
            raise UserError(
                f"distill.temperature is {temperature}, but {self._folder} holds "
                f"{self.layout.temperatures}; add it to teacher_logits.temperatures"
            )
        place = self.layout.temperatures.index(temperature)
        log_probs = torch.from_numpy(self._columns["log_probs"][rows].astype(np.float32))
        log_tail = torch.from_numpy(self._columns["log_tails"][rows, place])
        # The top k share what the tail leaves: one normalisation undoes both the softening and
        # the rounding to float16.
        inside = torch.log1p(-log_tail.exp()).unsqueeze(-1)
        softened = (log_probs / temperature).log_softmax(-1) + inside
        tokens = torch.from_numpy(self._columns["tokens"][rows].astype(np.int64))
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.layout.vocabulary:
            raise UserError(
                f"{self._folder} holds tokens beyond its vocabulary of {self.layout.vocabulary}; "
                "run the stage teacher_logits again"
            )
        return Targets(softened, tokens, log_tail, temperature)

    def _whole(self, output: OutputLayer, rows: Integers, temperature: float) -> Targets:
        weight = output.linear.weight
        states = torch.from_numpy(self._columns["states"][rows])
        if weight.dtype == torch.bfloat16:
            states = states.view(torch.bfloat16)
        with torch.no_grad():
            logits = output(states.to(weight.device)).float()
            log_probs = (logits / temperature).log_softmax(-1)
        return Targets(log_probs, None, None, temperature)


def _check_layout(layout: Layout) -> None:
    """Raise `ValueError` at a value that `record` does not write."""
    whole = layout.top_k is None
    numbers: list[Any] = [
        *(layout.vocabulary, layout.rows),
        layout.hidden if whole else layout.top_k,
    ]
    if not all(type(number) is int and number > 0 for number in numbers):
        kept = "hidden" if whole else "top_k"
        raise ValueError(f"record.json: {kept}, vocabulary and rows must be numbers above 0")
    if whole and not (isinstance(layout.dtype, str) and layout.dtype in STATES):
        raise ValueError(f"record.json: dtype is {layout.dtype!r}, not one of {', '.join(STATES)}")
    if not whole and (layout.hidden, layout.dtype, layout.output) != (None, None, None):
        raise ValueError("record.json: hidden, dtype and output are those of a whole record")
    temperatures: Any = layout.temperatures
    if not isinstance(temperatures, list) or not all(type(t) in (int, float) for t in temperatures):
        raise ValueError("record.json: temperatures must be a list of numbers")
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
