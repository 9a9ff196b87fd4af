"""Whether a study fits a machine, and if not, which parameter to change to what."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from regrow.plan.study import Row, device_bytes
from regrow.support.schema import Compute

GIBI = 2**30


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is.

    Attributes:
        devices: how many devices.
        memory: bytes a device; on a CPU, of the machine, for all processes together.
    """

    devices: int
    memory: int


def advice(row: Row, compute: Compute, machine: Machine) -> str | None:
    """None for a run that fits; for another, which parameter to change to what, in a few words."""
    if _fits(row.device, compute, machine):
        return None
    for changes in _changes(compute, machine) if row.peak else ():
        changed = compute.model_copy(update=changes)
        device = device_bytes(changed, row.peak(changed)) if row.peak else 0
        if _fits(device, changed, machine):
            said = ", ".join(f"compute.{key}: {_yaml(value)}" for key, value in changes.items())
            return f"set {said} ({device / GIBI:.1f} GiB)"
    return "take more devices, or ones with more memory"


def _fits(device: int, compute: Compute, machine: Machine) -> bool:
    together = compute.processes if compute.device == "cpu" else 1
    return device * together <= machine.memory


def _changes(compute: Compute, machine: Machine) -> Iterator[dict[str, Any]]:
    """What may be changed, the cheapest first; none of it changes what is computed."""
    sizes: list[int | None] = [compute.micro_batch, 4, 2, 1]
    counts = [compute.processes, *(n for n in (2, 4, 8, 16) if n <= machine.devices)]
    for processes, checkpointing, size in itertools.product(counts, (False, True), sizes):
        changes: dict[str, Any] = {}
        if processes > compute.processes:
            changes |= {"processes": processes, "shard": True}
        elif processes < compute.processes:
            continue
        if checkpointing and not compute.checkpointing:
            changes["checkpointing"] = True
        if size is not None and (compute.micro_batch is None or size < compute.micro_batch):
            changes["micro_batch"] = size
        if changes:
            yield changes


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
