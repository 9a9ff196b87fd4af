"""Whether a study fits a machine, and if not, which parameter to change to what."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from regrow.plan.study import GIBI, Row, device_bytes
from regrow.support.schema import Compute


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
            # True as YAML has it.
            said = ", ".join(f"compute.{key}: {str(to).lower()}" for key, to in changes.items())
            return f"set {said} ({device / GIBI:.1f} GiB)"
    return "take more devices, or ones with more memory"


def _fits(device: int, compute: Compute, machine: Machine) -> bool:
    together = compute.processes if compute.device == "cpu" else 1
    return device * together <= machine.memory


def _changes(compute: Compute, machine: Machine) -> Iterator[dict[str, Any]]:
    """What may be changed, the cheapest first; none of it changes what is computed."""
    now, batch = compute.processes, compute.micro_batch
    counts = [now, *(count for count in (2, 4, 8, 16) if now < count <= machine.devices)]
    sizes = [batch, *(size for size in (4, 2, 1) if batch is None or size < batch)]
    for processes, checkpointing, size in itertools.product(counts, (False, True), sizes):
        wanted = {
            **{"processes": processes, "shard": compute.shard or processes > now},
            **{"checkpointing": compute.checkpointing or checkpointing, "micro_batch": size},
        }
        if changes := {key: to for key, to in wanted.items() if to != getattr(compute, key)}:
            yield changes
