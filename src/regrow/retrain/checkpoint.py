"""What an interrupted training goes on from: weights and AdamW's states, saved by all ranks.

In safetensors, of which torch's distributed checkpoint reads and writes each rank's part, and which
hold no code: torch's own format is a pickle.
"""

import json
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

# The file that a checkpoint gets when all others are on the disk; it holds their hashes.
WHOLE = "whole"
LOG = "log.json"
MOMENTS = ("exp_avg", "exp_avg_sq")  # as AdamW names them
# Tensors a file: a rank holds the bytes of one file in memory while it writes.
A_FILE = 16
Logged = list[tuple[float, float, float]]


def save_checkpoint(
    model: Any, optimizer: torch.optim.Optimizer, logged: Logged, state: Unfinished
) -> None:
    """Save what a training has come to; only when it is whole, the one before it goes.

    Every rank writes its part, so that as many or more or fewer can go on from it.

    Args:
        model: not the wrapper of DDP.
        optimizer: its AdamW, with states.
        logged: loss, gradient norm and learning rate of every step so far.
        state: where to.

    Raises:
        UserError: the system did not let a rank write.
    """
    # Imported where they are used, for they take a second that most trainings need not wait for.
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    earlier = ranks.told(_last_checkpoint(state.folder) if ranks.first() else None)
    written = state.folder / f"checkpoint-{len(logged)}"
    try:
        tensors = _tensors(model, optimizer)
        files = {name: 1 + place // A_FILE for place, name in enumerate(tensors)}
        writer = HuggingFaceStorageWriter(str(written), files, save_distributed=True)
        _quietly(save, tensors, storage_writer=writer)
        if ranks.first():
            (written / LOG).write_text(json.dumps(logged), encoding="utf-8")
            flush(written)
            beside = written / f"{WHOLE}.partial"
            beside.write_text(json.dumps(fingerprints(written)), encoding="utf-8")
            flush(beside)
            beside.replace(written / WHOLE)
            flush(written)
    except Exception as error:
        shutil.rmtree(written, ignore_errors=True)
        if said := file_fault(_cause(error), written):
            raise UserError(said) from error
        raise
    if earlier is not None and ranks.first():
        shutil.rmtree(earlier)
    state.saved()


def load_checkpoint(model: Any, optimizer: torch.optim.Optimizer, state: Unfinished) -> Logged:
    """Put back what was saved last, and return what had been logged by then; else nothing."""
    checkpoint = ranks.told(_whole_checkpoint(state) if ranks.first() else None)
    if checkpoint is None:
        return []
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    if ranks.first():
        print(f"An interrupted training goes on from its {checkpoint.name}.", flush=True)
    logged = [tuple(values) for values in json.loads((checkpoint / LOG).read_text("utf-8"))]
    for kept in optimizer.state.values():
        kept["step"].fill_(len(logged))
    reader = HuggingFaceStorageReader(str(checkpoint))
    _quietly(load, _tensors(model, optimizer), storage_reader=reader)
    return logged


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


def _whole_checkpoint(state: Unfinished) -> Path | None:
    """The checkpoint to go on from, if it is as it was saved; else all state is removed."""
    checkpoint = _last_checkpoint(state.folder)
    if checkpoint is not None and (damaged := _damage(checkpoint)) is not None:
        state.discard(damaged)
        return None
    return checkpoint


def _last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of `folder` to go on from; what was not saved whole is removed."""
    latest: Path | None = None
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:])):
        if not (path / WHOLE).is_file():
            shutil.rmtree(path)
            continue
        if latest is not None:  # stopped just before it was removed
            shutil.rmtree(latest)
        latest = path
    return latest


def _damage(checkpoint: Path) -> Path | None:
    """A file of a checkpoint that is not as it was saved, if there is one."""
    try:
        saved = json.loads((checkpoint / WHOLE).read_text(encoding="utf-8"))
    except ValueError:
        return checkpoint / WHOLE
    found = fingerprints(checkpoint)
    del found[WHOLE]
    if saved == found:
        return None
    names = saved.keys() | found.keys() if isinstance(saved, dict) else {WHOLE}
    return checkpoint / min(
        name for name in names if name == WHOLE or saved.get(name) != found.get(name)
    )
