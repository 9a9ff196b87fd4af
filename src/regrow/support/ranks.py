"""The processes that share a stage's work, as torchrun starts them; one alone is rank 0 of 1.

The first rank writes, logs and decides. What goes wrong is said once, by whoever comes first, and
no rank waits for ever: one that ends has its connections closed, which ends those that wait for it.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import traceback
from datetime import timedelta
from typing import Any, NoReturn

from regrow.support.errors import UserError
from regrow.support.schema import Compute

AGAIN = "run it again, and it goes on from what was saved last"
LOST = f"another process of this stage ended, so this one ends too; {AGAIN}"
TOLD = f"it was told to end, as all processes of a stage are when one of them ends; {AGAIN}"
PATIENCE = timedelta(minutes=30)
"""For a rank that is alive and does not come, as while the first writes a large model."""

_store: Any = None  # what all ranks share from `join` on; the launcher holds it


def rank() -> int:
    """This process among those of the stage, from 0."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes the stage has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this process is the one that writes, logs and decides."""
    return rank() == 0


def join(compute: Compute) -> None:
    """Meet the other processes, before any model is loaded; `UserError` if they are not as many."""
    global _store
    if world() != compute.processes:
        raise UserError(
            f"this stage runs in {world()} process{'es' * (world() > 1)}, but compute.processes is "
            f"{compute.processes}; let compute.launch ({compute.launch}) start as many"
        )
    if world() == 1 or _store is not None:
        return
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    _end_when_told()
    _store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    backend = "gloo" if compute.device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend, store=_store, rank=rank(), world_size=world(), timeout=PATIENCE
    )


def local_device(device: str) -> str:
    """The device of this process: `cuda` is each one's own of its machine, `cuda:1` is said."""
    shared = device == "cuda" and world() > 1
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if shared else device


def leave() -> None:
    """Part from the other processes, when all work is done."""
    if _store is not None:
        import torch.distributed as dist

        dist.destroy_process_group()


def fail(reason: str | Exception) -> NoReturn:
    """End this process with a sentence or a traceback, unless another rank said one already."""
    if world() == 1:
        if isinstance(reason, Exception):
            raise reason
        sys.exit(reason)
    if speaks():
        text = reason if isinstance(reason, str) else "".join(traceback.format_exception(reason))
        print(text, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # what else a process does at its end may wait for the others


def speaks() -> bool:
    """Whether no other rank has asked this before."""
    if _store is None:
        return first()
    try:
        return bool(_store.add("said", 1) == 1)
    except RuntimeError:  # the launcher is gone too
        return first()


def loss(error: BaseException) -> str | None:
    """The sentence for another rank that is gone, else None."""
    words = ("gloo", "NCCL", "onnection closed", "onnection reset")
    if _store is None or not isinstance(error, RuntimeError):
        return None
    gone = type(error).__name__.startswith("Dist") or any(word in str(error) for word in words)
    return LOST if gone else None


def _end_when_told() -> None:
    """End with a sentence on SIGTERM, which the launcher sends when another rank ended.

    By a thread, for the main one may wait in a collective, where Python handles no signal. The
    system sends it too when the launcher itself is killed.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)

    def watch() -> None:
        while int.from_bytes(reader.recv(1), "big") != signal.SIGTERM:
            pass
        fail(f"regrow {sys.argv[1]}: {TOLD}")

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform.startswith("linux"):
        tell_of_parents_end = 1  # PR_SET_PDEATHSIG of prctl.h
        ctypes.CDLL(None).prctl(tell_of_parents_end, signal.SIGTERM)


def wait() -> None:
    """Until all ranks are here."""
    gathered(None)


def told(value: Any) -> Any:
    """What the first rank gives, on every rank."""
    if world() == 1:
        return value
    import torch
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
    return box[0]


def gathered(value: Any) -> list[Any]:
    """What every rank gives, in their order, on every rank."""
    if world() == 1:
        return [value]
    import torch.distributed as dist

    every: list[Any] = [None] * world()
    dist.all_gather_object(every, value)
    return every
