"""Recording the teacher's distributions once."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from regrow.distill.record import Column, Layout, as_stored, hash_of_matrix
from regrow.model.forward import read_rows
from regrow.model.scoring import branch_log_probs, by_tree, rounds
from regrow.model.trees import Positions, Tree, by_tokens, flat_rows, pack
from regrow.support import ranks
from regrow.support.files import flush, replacing, write_json
from regrow.support.resume import Unfinished

BATCH_TOKENS = 1024
Rows = npt.NDArray[np.int64]
Mapped = np.memmap[Any, Any]
Found = tuple[dict[str, npt.NDArray[Any]], list[list[float]]]
"""Of a batch: its rows of every column, and the scores of its choices."""
Done = tuple[list[list[float]], str]
"""Of a batch: these scores, and a hash of its rows."""


def record(
    model: Any,
    ids: Sequence[str],
    trees: Sequence[Tree],
    positions: Positions,
    out: Path,
    state: Unfinished,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[float]]:
    """Run the teacher over the trees of the questions `ids` and write the record folder `out`.

    Memory holds one batch at a time, of `batch_tokens` nodes at most. `state` keeps the rows
    recorded so far, and those of an interrupted run.

    Returns:
        What `score_choices` would: for each tree, the log-probability of each branch. The logits
        of the record give it for nothing.
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
    rows = [np.concatenate([np.arange(*offsets[i : i + 2]) for i in batch]) for batch in batches]
    folder = state.folder / "record"
    done: list[Done] = ranks.told(_begin(folder, layout, rows, state) if ranks.first() else None)
    for dealt in rounds(len(done), len(batches)):
        mine = [trees[index] for index in batches[dealt[ranks.rank()]]]
        found = ranks.gathered(_distributions(model, mine, layout))
        for place, (values, scored) in zip(dict.fromkeys(dealt), found, strict=False):
            digest = _keep(folder, layout, rows[place], values) if ranks.first() else ""
            done.append((scored, digest))
        if ranks.first() and state.due():
            flush(folder)
            state.write(done)
    if ranks.first():
        with replacing(out) as beside:
            write_json(folder / "record.json", asdict(layout))
            (folder / "ids.json").write_text(json.dumps(list(ids)), encoding="utf-8")
            np.save(folder / "offsets.npy", offsets, allow_pickle=False)
            flush(folder)
            shutil.move(folder, beside)
    return by_tree(batches, [scored for scored, _ in done])


def _begin(folder: Path, layout: Layout, rows: Sequence[Rows], state: Unfinished) -> list[Done]:
    """What an interrupted run recorded, or a new record with nothing in it."""
    # Without its folder the record is either not begun or just moved to where it belongs.
    done: list[Done] = (folder.is_dir() and state.read()) or []
    if done and not _is_as_saved(folder, layout, rows, done):
        state.discard(folder)
        done = []
    if done:
        going_on = f"An interrupted record goes on behind {len(done)} of {len(rows)} batches."
        print(going_on, flush=True)
        return done
    with replacing(folder) as beside:
        beside.mkdir()
        for name, (dtype, shape) in _recorded(layout).items():
            path = beside / f"{name}.npy"
            np.lib.format.open_memmap(path, "w+", dtype, shape)
            if hasattr(os, "posix_fallocate"):
                # Until they are written to, the file's pages have no room on the disk, and where
                # there is none for a page of mapped memory the system kills the process.
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return []


def _keep(folder: Path, layout: Layout, rows: Rows, found: dict[str, npt.NDArray[Any]]) -> str:
    """Write what was found of a batch; return a hash of it."""
    # Opened anew, for all that a mapping was ever used for counts as memory in use.
    columns = _open(folder, layout)
    for name, column in columns.items():
        column[rows] = found[name]
    return _digest(columns, rows)


def _recorded(layout: Layout) -> dict[str, Column]:
    """The columns that the teacher fills; the offsets are known before."""
    return {name: column for name, column in layout.columns(0).items() if name != "offsets"}


def _open(folder: Path, layout: Layout) -> dict[str, Mapped]:
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "r+") for name in _recorded(layout)
    }


def _digest(columns: dict[str, Mapped], rows: Rows) -> str:
    """A hash of some rows of all columns."""
    parts = (column[rows].tobytes() for column in columns.values())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _is_as_saved(folder: Path, layout: Layout, rows: Sequence[Rows], done: Sequence[Done]) -> bool:
    """Whether the columns still hold what was recorded of the batches `done`."""
    try:
        columns = _open(folder, layout)
    except (OSError, EOFError, ValueError):
        return False
    for name, (dtype, shape) in _recorded(layout).items():
        if columns[name].dtype != dtype or columns[name].shape != shape:
            return False
    return all(
        _digest(columns, of_batch) == kept for of_batch, (_, kept) in zip(rows, done, strict=False)
    )


@torch.inference_mode()
def _distributions(model: Any, trees: Sequence[Tree], layout: Layout) -> Found:
    batch = pack(trees)
    rows = flat_rows(batch, trees, layout.positions)
    states, logits = read_rows(model, batch, rows, lambda states, output: (states, output(states)))
    logits = logits.float()  # the narrower ones go
    columns: dict[str, npt.NDArray[Any]] = {
        "nodes": batch.input_ids.reshape(-1)[rows].numpy().astype(np.int32),
        "states": as_stored(states.to(model.dtype)),
    }
    return columns, branch_log_probs(logits, trees, layout.positions)
