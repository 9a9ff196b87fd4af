"""Recording the teacher's distributions once, and reading them back, memory-mapped.

A record is a folder. It holds a distribution for every node of the questions' token trees that
`positions` selects, in the order of the questions:

- `record.json`: what follows, in numbers;
- `ids.json`: the questions' ids, in order;
- `offsets.npy` [questions + 1] int64: question q owns rows offsets[q] to offsets[q + 1];
- `nodes.npy` [rows] int32: the token that the teacher read there, so that a record is never laid
  over another tokenisation;
- whole: `states.npy` [rows, hidden], the teacher's last hidden states in its own type (bfloat16 as
  uint16). With the teacher's output matrix, of which `record.json` holds a hash, they give every
  logit back, at a fiftieth to a hundredth of the logits' size;
- top-k: `tokens.npy` [rows, k] uint16 or int32, `log_probs.npy` [rows, k] float16, natural log at
  temperature 1, most probable first, and `log_tails.npy` [rows, temperatures] float32, the log of
  all other tokens' mass at each recorded temperature.
"""

import hashlib
import json
import math
import os
import shutil
import tokenize
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch

from regrow.checkpoints import load_model
from regrow.errors import UserError
from regrow.files import replacing, write_json
from regrow.forward import OutputLayer, output_layer, row_states
from regrow.resume import Unfinished, flush
from regrow.scoring import branch_log_probs, row_parts
from regrow.trees import Positions, Tree, by_tokens, flat_rows, pack

BATCH_TOKENS = 1024
STATES: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,  # NumPy has no type for it
}
"""What holds states of a model's dtype."""

Column = tuple[type[np.generic], tuple[int, ...]]
Mapped = np.memmap[Any, Any]
Done = tuple[list[list[float]], str]  # a batch's scores, and a hash of its rows


@dataclass(frozen=True, slots=True)
class Layout:
    """What a record holds: `record.json`.

    Attributes:
        positions: `answer` or `all`, see `Tree.rows`.
        top_k: tokens a row, or none for a whole record; the last three are of a whole one alone.
        temperatures: those whose tails are recorded.
        vocabulary: tokens of the teacher.
        rows: all positions recorded.
        hidden: numbers a state.
        dtype: the states', a name of `STATES`.
        output: the SHA-256 of the teacher's output matrix.
    """

    positions: Positions
    top_k: int | None
    temperatures: list[float]
    vocabulary: int
    rows: int
    hidden: int | None = None
    dtype: str | None = None
    output: str | None = None

    def columns(self, questions: int) -> dict[str, Column]:
        """The type and shape of each column of a record of so many questions."""
        found: dict[str, Column] = {
            "offsets": (np.int64, (questions + 1,)),
            "nodes": (np.int32, (self.rows,)),
        }
        if self.hidden is not None and self.dtype is not None:
            return found | {"states": (STATES[self.dtype], (self.rows, self.hidden))}
        assert self.top_k is not None  # see `_check_layout`
        token = np.uint16 if self.vocabulary <= 2**16 else np.int32
        return found | {
            "tokens": (token, (self.rows, self.top_k)),
            "log_probs": (np.float16, (self.rows, self.top_k)),
            "log_tails": (np.float32, (self.rows, len(self.temperatures))),
        }


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


def record(
    model: Any,
    ids: Sequence[str],
    trees: Sequence[Tree],
    positions: Positions,
    top_k: int | None,
    temperatures: Sequence[float],
    out: Path,
    state: Unfinished,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[float]]:
    """Run the teacher over all trees and write the record folder `out`.

    Memory holds one batch at a time, however many questions there are.

    Returns:
        What `score_choices` would: for each tree, the log-probability of each branch. The logits
        of the record give it for nothing.

    Args:
        model: the teacher.
        ids: the questions' ids.
        trees: their trees, in the same order.
        positions: `answer` or `all`, see `Tree.rows`.
        top_k: how many tokens a row keeps; none keeps what gives the whole distribution.
        temperatures: those whose tail mass is kept beside the top k.
        out: the folder to write.
        state: keeps the rows recorded so far, and those of an interrupted run.
        batch_tokens: nodes a batch holds at most.
    """
    vocabulary = model.get_output_embeddings().weight.shape[0]
    if top_k is not None and top_k >= vocabulary:
        raise UserError(
            f"teacher_logits.top_k is {top_k}, but the vocabulary has {vocabulary} tokens; lower "
            "it, or set it to null to record whole distributions"
        )
    counts = [len(tree.rows(positions)) for tree in trees]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = int(offsets[-1])
    layout = Layout(positions, top_k, list(temperatures), vocabulary, rows)
    if top_k is None:
        output = model.get_output_embeddings()
        layout = replace(
            layout,
            hidden=output.in_features,
            dtype=str(model.dtype).removeprefix("torch."),
            output=_hash_of_matrix(output),
        )
    batches = by_tokens(trees, batch_tokens)
    spans = [slice(*offsets[place : place + 2].tolist()) for place in range(len(trees))]
    folder = state.folder / "record"
    # Without its folder the record is either not begun or just moved to where it belongs.
    done: list[Done] = (folder.is_dir() and state.read()) or []
    if done and not _is_as_saved(folder, layout, batches, spans, done):
        state.discard(folder)
        done = []
    if done:
        print(
            f"An interrupted record goes on behind {len(done)} of {len(batches)} batches.",
            flush=True,
        )
        _describe(folder, layout, ids, offsets)
    else:
        with replacing(folder) as beside:
            beside.mkdir()
            _describe(beside, layout, ids, offsets)
            _create(beside, layout)
    for members in batches[len(done) :]:
        # Opened anew, for all that a mapping was ever used for counts as memory in use.
        columns = _open(folder, layout)
        found, scored = _distributions(model, [trees[index] for index in members], layout)
        for index, values in zip(members, found, strict=True):
            for name, column in columns.items():
                column[spans[index]] = values[name]
        done.append((scored, _digest(columns, members, spans)))
        if state.due():
            for column in columns.values():
                column.flush()
            state.write(done)
    flush(folder)
    with replacing(out) as beside:
        shutil.move(folder, beside)
    scores: list[list[float]] = [[] for _ in trees]
    for members, (scored, _) in zip(batches, done, strict=True):
        for index, score in zip(members, scored, strict=True):
            scores[index] = score
    return scores


def _describe(folder: Path, layout: Layout, ids: Sequence[str], offsets: npt.NDArray[Any]) -> None:
    """Write all but the columns."""
    values = asdict(layout)
    of_states = {"hidden", "dtype", "output"} if layout.top_k is not None else set()
    write_json(folder / "record.json", {key: values[key] for key in values if key not in of_states})
    (folder / "ids.json").write_text(json.dumps(list(ids)), encoding="utf-8")
    np.save(folder / "offsets.npy", offsets, allow_pickle=False)


def _create(folder: Path, layout: Layout) -> None:
    """Write every column's file in its whole length."""
    for name, (dtype, shape) in _recorded(layout).items():
        path = folder / f"{name}.npy"
        np.lib.format.open_memmap(path, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):
            # Until they are written to, the file's pages have no room on the disk, and where there
            # is none for a page of mapped memory the system kills the process.
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _recorded(layout: Layout) -> dict[str, Column]:
    """The columns that the teacher fills; the offsets are known before."""
    return {name: column for name, column in layout.columns(0).items() if name != "offsets"}


def _open(folder: Path, layout: Layout) -> dict[str, Mapped]:
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "r+") for name in _recorded(layout)
    }


def _digest(columns: dict[str, Mapped], members: Sequence[int], spans: Sequence[slice]) -> str:
    """A hash of what the columns hold for some questions."""
    found = hashlib.sha256()
    for column in columns.values():
        for index in members:
            found.update(column[spans[index]].tobytes())
    return found.hexdigest()


def _is_as_saved(
    folder: Path,
    layout: Layout,
    batches: Sequence[Sequence[int]],
    spans: Sequence[slice],
    done: Sequence[Done],
) -> bool:
    """Whether the columns still hold what was recorded of the batches `done`."""
    try:
        columns = _open(folder, layout)
    except (OSError, EOFError, ValueError):
        return False
    for name, (dtype, shape) in _recorded(layout).items():
        if columns[name].dtype != dtype or columns[name].shape != shape:
            return False
    return all(
        _digest(columns, members, spans) == digest
        for members, (_, digest) in zip(batches, done, strict=False)
    )


@torch.inference_mode()
def _distributions(
    model: Any, trees: Sequence[Tree], layout: Layout
) -> tuple[list[dict[str, npt.NDArray[Any]]], list[list[float]]]:
    """For each tree, its rows of every column, and the log-probability of each branch."""
    batch = pack(trees)
    rows = flat_rows(batch, trees, layout.positions)
    states = row_states(model, batch, rows)
    logits = output_layer(model)(states).float()
    found: dict[str, npt.NDArray[Any]] = {
        "nodes": batch.input_ids.reshape(-1)[rows].numpy().astype(np.int32)
    }
    if layout.top_k is None:
        found["states"] = _as_stored(states)
    else:
        parts = [_top(part, layout.top_k, layout.temperatures) for part in row_parts(logits)]
        found |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    bounds = np.cumsum([len(tree.rows(layout.positions)) for tree in trees])[:-1]
    split = {name: np.split(values, bounds) for name, values in found.items()}
    columns = [{name: parts[place] for name, parts in split.items()} for place in range(len(trees))]
    return columns, branch_log_probs(logits, trees, layout.positions)


def _as_stored(states: torch.Tensor) -> npt.NDArray[Any]:
    kept = states.cpu()
    array: npt.NDArray[Any] = (
        kept.view(torch.uint16) if kept.dtype == torch.bfloat16 else kept
    ).numpy()
    return array


def _is_of(linear: Any, layout: Layout) -> bool:
    """Whether a record was made with this output layer."""
    shape = (layout.vocabulary, layout.hidden)
    return tuple(linear.weight.shape) == shape and _hash_of_matrix(linear) == layout.output


def _hash_of_matrix(linear: Any) -> str:
    """SHA-256 of an output matrix, from which alone the same states give the same logits.

    Raises:
        UserError: the layer also adds a bias, which a whole record does not hold.
    """
    if linear.bias is not None:
        raise UserError(
            "this model's output layer has a bias, of which no whole record is made; set "
            "teacher_logits.top_k to a number"
        )
    matrix = _as_stored(linear.weight.detach())
    return hashlib.sha256(np.ascontiguousarray(matrix).data).hexdigest()


def _top(
    logits: torch.Tensor, top_k: int, temperatures: Sequence[float]
) -> dict[str, npt.NDArray[Any]]:
    """The columns of a top-k record, from logits [rows, vocabulary]."""
    top = logits.topk(top_k, dim=-1)
    log_probs = top.values - logits.logsumexp(-1, keepdim=True)
    rest = logits.scatter(-1, top.indices, float("-inf"))
    tails = [
        (rest / temperature).logsumexp(-1) - (logits / temperature).logsumexp(-1)
        for temperature in temperatures
    ]
    return {
        "tokens": top.indices.cpu().numpy(),
        "log_probs": log_probs.cpu().numpy(),
        "log_tails": torch.stack(tails, -1).cpu().numpy(),
    }


class Record:
    """A record folder, opened for reading; rows are read from disk as they are asked for.

    Args:
        folder: the record's.
        output: the teacher's output layer, which a whole record needs for `targets`.

    Raises:
        UserError: the folder holds no record, or one of another teacher than `output` is of.
    """

    def __init__(self, folder: Path, output: OutputLayer | None = None) -> None:
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
        if output is not None and not _is_of(output.linear, self.layout):
            raise UserError(
                f"{folder} was not made with this teacher's output matrix; give --teacher the "
                "model that it was made with, or run the stage teacher_logits again"
            )
        self._places = {identity: place for place, identity in enumerate(ids)}
        self._folder = folder
        self._output = output

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
            if not np.array_equal(
                self._columns["nodes"][self._rows(identity)], tokens[rows.start :]
            ):
                raise UserError(
                    f"{self._folder} holds question {identity} in other tokens than the student "
                    "reads; record it again with the student's tokenizer and prompt.format"
                )

    def targets(self, ids: Sequence[str], temperature: float) -> Targets:
        """The teacher's distributions for the questions `ids`, one after the other.

        Raises:
            UserError: a top-k record that was not made with this temperature.
        """
        spans = [self._rows(identity) for identity in ids]
        if self.layout.top_k is None:
            return self._whole(spans, temperature)
        log_probs = torch.from_numpy(self._read("log_probs", spans).astype(np.float32))
        if temperature not in self.layout.temperatures:
            raise UserError(
                f"distill.temperature is {temperature}, but {self._folder} holds "
                f"{self.layout.temperatures}; add it to teacher_logits.temperatures"
            )
        place = self.layout.temperatures.index(temperature)
        log_tail = torch.from_numpy(self._read("log_tails", spans)[:, place])
        # The top k share what the tail leaves: one normalisation undoes both the softening and
        # the rounding to float16.
        inside = torch.log1p(-log_tail.exp()).unsqueeze(-1)
        softened = (log_probs / temperature).log_softmax(-1) + inside
        tokens = torch.from_numpy(self._read("tokens", spans).astype(np.int64))
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.layout.vocabulary:
            raise UserError(
                f"{self._folder} holds tokens beyond its vocabulary of {self.layout.vocabulary}; "
                "run the stage teacher_logits again"
            )
        return Targets(softened, tokens, log_tail, temperature)

    def _whole(self, spans: Sequence[slice], temperature: float) -> Targets:
        assert self._output is not None, "a whole record is read with its teacher's output layer"
        weight = self._output.linear.weight
        states = torch.from_numpy(self._read("states", spans))
        if weight.dtype == torch.bfloat16:
            states = states.view(torch.bfloat16)
        with torch.no_grad():
            logits = self._output(states.to(weight.device)).float()
            log_probs = (logits / temperature).log_softmax(-1)
        return Targets(log_probs, None, None, temperature)

    def _rows(self, identity: str) -> slice:
        place = self._places[identity]
        start, stop = self._columns["offsets"][place : place + 2]
        return slice(int(start), int(stop))

    def _read(self, name: str, spans: Sequence[slice]) -> npt.NDArray[Any]:
        return np.concatenate([self._columns[name][span] for span in spans])


def open_record(folder: Path, teacher: Path | None, dtype: str, device: str) -> Record:
    """A record, with the output layer of the model in `teacher` where it needs one.

    Raises:
        UserError: as `Record` does, or a whole record is to be read and no teacher is given.
    """
    kept = Record(folder)
    if kept.layout.top_k is not None:
        return kept
    if teacher is None:
        raise UserError(
            f"{folder} holds hidden states (teacher_logits.top_k is null), which need the "
            "teacher's output matrix: give --teacher the model that the record was made with"
        )
    return Record(folder, output_layer(load_model(teacher, dtype, device)))


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
