"""Reproduce the study with stages that do not need each other side by side."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from regrow.support.errors import UserError
from regrow.support.params import read_params
from regrow.support.schema import Compute


@dataclass
class Work:
    """The stages of a study in DVC's own order, and what is left of them.

    Attributes:
        order: every stage, as `finetune@l2-0.2-600-0`, in the order of `dvc repro`.
        needs: of each stage, those whose outputs it reads.
        waiting: stages to run: those that are out of date, and all that follow them.
    """

    order: list[str]
    needs: dict[str, set[str]]
    waiting: list[str]
    running: set[str] = field(default_factory=set)

    def ready(self) -> Iterator[str]:
        """Stages that wait for no other, first ones first."""
        unfinished = self.running.union(self.waiting)
        for name in list(self.waiting):
            if not self.needs[name] & unfinished:
                yield name


def main(
    jobs: Annotated[int, typer.Option(min=1, help="how many stages run at once")] = 2,
) -> None:
    """Run what `dvc repro` would, at most so many stages at once, each in a DVC of its own.

    Every stage is run by `dvc repro --single-item` and under DVC's own locks, so that a run which
    is interrupted is one that `dvc repro` goes on from.
    """
    slots = devices(read_params().compute, jobs)
    work = plan()
    locked = lock_order()
    try:
        failed = run(work, slots)
    finally:
        write_lock_order(locked, work.order)
    if failed:
        raise UserError(
            f"{' and '.join(failed)} failed, for what is said above; what ran beside it was let "
            "end, and nothing new was begun: put it right, then run this again"
        )
    print("Data and pipelines are up to date.")


def devices(compute: Compute, jobs: int) -> list[dict[str, str]]:
    """What each of the jobs finds in its environment: where there are several GPUs, its own.

    Raises:
        UserError: a stage asks for more GPUs than there are.
    """
    if compute.device != "cuda":
        return [{}] * jobs
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = named.split(",") if named else [str(n) for n in range(torch.cuda.device_count())]
    each = compute.processes
    if len(there) < each:
        raise UserError(
            f"compute.processes is {each}, but {len(there)} GPUs are here; lower it, or run on a "
            "machine with more"
        )
    if len(there) == 1:
        return [{}] * jobs
    parts = [there[start : start + each] for start in range(0, len(there) - each + 1, each)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts[:jobs]]


def plan() -> Work:
    """Ask DVC which stages are out of date."""
    from dvc.repo import Repo
    from dvc.repo.reproduce import get_active_graph, plan_repro

    with Repo(_wait_for_lock=True) as repo:
        graph = get_active_graph(repo.index.graph)
        order = plan_repro(graph)
        names = {stage: str(stage.addressing) for stage in order}
        needs = {names[stage]: {names[read] for read in graph.successors(stage)} for stage in order}
        stale = set(repo.status())
    waiting: list[str] = []
    for name in map(names.__getitem__, order):
        if name in stale or needs[name].intersection(waiting):
            waiting.append(name)
    return Work(list(names.values()), needs, waiting)


def run(work: Work, slots: list[dict[str, str]]) -> list[str]:
    """Run all that waits, a stage a slot; after a failure nothing new. Return what failed."""
    jobs: dict[int, tuple[str, dict[str, str]]] = {}  # by process
    failed: list[str] = []
    free = list(slots)
    with passing_on(jobs):
        while True:
            if not failed:
                for name, slot in zip(list(work.ready()), list(free), strict=False):
                    jobs[start(name, slot)] = (name, slot)
                    work.waiting.remove(name)
                    work.running.add(name)
                    free.remove(slot)
            if not jobs:
                return failed
            process, status = os.wait()
            name, slot = jobs.pop(process)
            work.running.remove(name)
            free.append(slot)
            if status:
                failed.append(name)


def start(name: str, slot: dict[str, str]) -> int:
    """Have DVC run one stage, in a group of processes of its own."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    done = subprocess.Popen(command, env=os.environ | slot, start_new_session=True)
    return done.pid


@contextmanager
def passing_on(jobs: dict[int, Any]) -> Iterator[None]:
    """Let an interruption reach the stages that run, and end when they have ended."""

    def stop(number: int, _frame: object) -> None:
        for process in jobs:
            with suppress(ProcessLookupError):  # it ended by itself just now
                os.killpg(process, number)
        with suppress(ChildProcessError):
            while True:
                os.wait()
        sys.exit(128 + number)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# DVC appends to dvc.lock what it has not held yet, in the order in which stages end.


def lock_order() -> list[str]:
    """The stages that dvc.lock holds."""
    return list(_locked())


def write_lock_order(before: list[str], order: list[str]) -> None:
    """Give dvc.lock the order that one stage after the other would have given it."""
    from dvc.repo import Repo
    from dvc.utils.serialize import modify_yaml

    with Repo(_wait_for_lock=True) as repo, repo.lock:
        now = list(_locked())
        wanted = [name for name in dict.fromkeys(itertools.chain(before, order)) if name in now]
        wanted += [name for name in now if name not in wanted]
        if wanted != now:
            with modify_yaml("dvc.lock") as data:
                data["stages"] = {name: data["stages"][name] for name in wanted}


def _locked() -> dict[str, Any]:
    from dvc.utils.serialize import load_yaml

    try:
        return dict(load_yaml("dvc.lock").get("stages", {}))
    except OSError:
        return {}
