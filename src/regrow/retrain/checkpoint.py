"""What an interrupted training goes on from: weights and AdamW's states, saved by all ranks.

In safetensors, of which torch's distributed checkpoint reads and writes each rank's part, and which
hold no code: torch's own format is a pickle.
"""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from regrow.support import ranks
from regrow.support.errors import UserError, file_fault
from regrow.support.files import flush
from regrow.support.resume import Unfinished, fingerprints

MOMENTS = ("exp_avg", "exp_avg_sq")  # as AdamW names them
# Tensors a file: a rank holds the bytes of one file in memory while it writes.
A_FILE = 16
Logged = list[tuple[float, float, float]]


def save_checkpoint(
    model: Any, optimizer: torch.optim.Optimizer, logged: Logged, state: Unfinished
) -> None:
    """Save what a training has come to; only when it is whole, the one before it goes.

    Every rank writes its part, so that as many or more or fewer can go on from it. `model` is not
    in DDP's wrapper; `logged` is loss, gradient norm and learning rate of every step so far.
    """
    # Imported where they are used, for they take a second that most trainings need not wait for.
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    written = _folder(state, logged)
    try:
        tensors = _tensors(model, optimizer)
        files = {name: 1 + place // A_FILE for place, name in enumerate(tensors)}
        writer = HuggingFaceStorageWriter(str(written), files, save_distributed=True)
        _quietly(save, tensors, storage_writer=writer)
        if ranks.first():
            flush(written)
            state.write({"files": fingerprints(written), "logged": logged})
    except Exception as error:
        shutil.rmtree(written, ignore_errors=True)
        if said := file_fault(_cause(error), written):
            raise UserError(said) from error
        raise
    if ranks.first():
        _remove_others(written)
    else:
        state.saved()


def load_checkpoint(model: Any, optimizer: torch.optim.Optimizer, state: Unfinished) -> Logged:
    """Put back what was saved last, and return what had been logged by then; else nothing."""
    logged: Logged = ranks.told(_saved(state) if ranks.first() else None)
    if not logged:
        return []
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    checkpoint = _folder(state, logged)
    if ranks.first():
        print(f"An interrupted training goes on from its {checkpoint.name}.", flush=True)
    for kept in optimizer.state.values():
        kept["step"].fill_(len(logged))
    reader = HuggingFaceStorageReader(str(checkpoint))
    _quietly(load, _tensors(model, optimizer), storage_reader=reader)
    return logged


def _saved(state: Unfinished) -> Logged:
    """What was logged up to the last whole checkpoint; where it is damaged, all state goes."""
    progress = state.read() or {"files": {}, "logged": []}
    checkpoint = _folder(state, progress["logged"])
    _remove_others(checkpoint)
    saved = progress["files"]
    found = fingerprints(checkpoint) if checkpoint.is_dir() else {}
    for name in saved | found:
        if saved.get(name) != found.get(name):
            state.discard(checkpoint / name)
            return []
    return [tuple(values) for values in progress["logged"]]


def _folder(state: Unfinished, logged: Logged) -> Path:
    return state.folder / f"checkpoint-{len(logged)}"


def _remove_others(checkpoint: Path) -> None:
    """Remove those before it, and what was not saved whole."""
    for path in checkpoint.parent.glob("checkpoint-*"):
        if path != checkpoint:
            shutil.rmtree(path)


def _tensors(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Every weight and what AdamW keeps of it, by name; tied matrices once."""
    found = {}
    for name, parameter in model.named_parameters():
        found[name] = parameter.detach()
        for moment in MOMENTS:
            found[f"{name}.{moment}"] = optimizer.state[parameter][moment]
    return found


def _quietly(work: Callable[..., None], *given: Any, **named: Any) -> None:
    """Without torch's warning that one process is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        work(*given, **named, no_dist=ranks.world() == 1)


def _cause(error: Exception) -> BaseException:
    """What a rank came upon, of all that torch says of it."""
    failures = getattr(error, "failures", None)
    return next(iter(failures.values()))[0] if failures else error
