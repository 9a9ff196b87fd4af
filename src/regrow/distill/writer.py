"""Recording the teacher's distributions once."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from regrow.distill.record import Column, Layout, as_stored, hash_of_matrix
from regrow.model.forward import read_rows
from regrow.model.scoring import branch_log_probs, rounds
from regrow.model.trees import Positions, Tree, by_tokens, flat_rows, pack
from regrow.support import ranks
from regrow.support.files import flush, replacing, write_json
from regrow.support.resume import Unfinished

BATCH_TOKENS = 1024
Mapped = np.memmap[Any, Any]
# Of a batch: each tree's rows of every column, and its choices' scores.
Found = tuple[list[dict[str, npt.NDArray[Any]]], list[list[float]]]
Done = tuple[list[list[float]], str]  # a batch's scores, and a hash of its rows


def record(
    model: Any,
    ids: Sequence[str],
    trees: Sequence[Tree],
    positions: Positions,
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
        out: the folder to write.
        state: keeps the rows recorded so far, and those of an interrupted run.
        batch_tokens: nodes a batch holds at most.
    """
    counts = [len(tree.rows(positions)) for tree in trees]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    output = model.get_output_embeddings()
    layout = Layout(
        positions=positions,
        vocabulary=output.weight.shape[0],
        rows=int(offsets[-1]),
        hidden=output.in_features,
        dtype=str(model.dtype).removeprefix("torch."),
        output=hash_of_matrix(output),
    )
    batches = by_tokens(trees, batch_tokens)
    spans = [slice(*offsets[place : place + 2].tolist()) for place in range(len(trees))]
    folder = state.folder / "record"
    done: list[Done] = ranks.told(
        _begin(folder, layout, ids, offsets, batches, spans, state) if ranks.first() else None
    )
    for dealt in rounds(len(done), len(batches)):
        mine = [trees[index] for index in batches[dealt[ranks.rank()]]]
        found = ranks.gathered(_distributions(model, mine, layout))
        if not ranks.first():
            done += [(scored, "") for _, scored in found[: len(set(dealt))]]
            continue
        kept = dict(zip(dict.fromkeys(dealt), found, strict=False))
        _keep(folder, layout, batches, spans, kept, done, state)
    if ranks.first():
        with replacing(out) as beside:
            flush(folder)
            shutil.move(folder, beside)
    scores: list[list[float]] = [[] for _ in trees]
    for members, (scored, _) in zip(batches, done, strict=True):
        for index, score in zip(members, scored, strict=True):
            scores[index] = score
    return scores


def _begin(
    folder: Path,
    layout: Layout,
    ids: Sequence[str],
    offsets: npt.NDArray[Any],
    batches: Sequence[Sequence[int]],
    spans: Sequence[slice],
    state: Unfinished,
) -> list[Done]:
    """What an interrupted run recorded, or a new record with nothing in it."""
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
    return done


def _keep(
    folder: Path,
    layout: Layout,
    batches: Sequence[Sequence[int]],
    spans: Sequence[slice],
    found: Mapping[int, Found],
    done: list[Done],
    state: Unfinished,
) -> None:
    """Write what was found of some batches, and add them to those that are done."""
    # Opened anew, for all that a mapping was ever used for counts as memory in use.
    columns = _open(folder, layout)
    for place, (values, scored) in found.items():
        for index, rows in zip(batches[place], values, strict=True):
            for name, column in columns.items():
                column[spans[index]] = rows[name]
        done.append((scored, _digest(columns, batches[place], spans)))
    if state.due():
        for column in columns.values():
            column.flush()
        state.write(done)


def _describe(folder: Path, layout: Layout, ids: Sequence[str], offsets: npt.NDArray[Any]) -> None:
    """Write all but the columns."""
    write_json(folder / "record.json", asdict(layout))
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
def _distributions(model: Any, trees: Sequence[Tree], layout: Layout) -> Found:
    """For each tree, its rows of every column, and the log-probability of each branch."""
    batch = pack(trees)
    rows = flat_rows(batch, trees, layout.positions)
    states, logits = read_rows(model, batch, rows, lambda states, output: (states, output(states)))
    states, logits = states.to(model.dtype), logits.float()
    found: dict[str, npt.NDArray[Any]] = {
        "nodes": batch.input_ids.reshape(-1)[rows].numpy().astype(np.int32),
        "states": as_stored(states),
    }
    bounds = np.cumsum([len(tree.rows(layout.positions)) for tree in trees])[:-1]
    split = {name: np.split(values, bounds) for name, values in found.items()}
    columns = [{name: parts[place] for name, parts in split.items()} for place in range(len(trees))]
    return columns, branch_log_probs(logits, trees, layout.positions)
