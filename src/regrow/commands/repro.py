"""Reproduce the study with stages that do not need each other side by side."""

import os
import signal
import sys
from contextlib import suppress
from graphlib import TopologicalSorter
from pathlib import Path
from subprocess import Popen
from typing import Annotated, Any

import typer

from regrow.support.errors import UserError
from regrow.support.params import read_params
from regrow.support.schema import Compute

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
ON_CPU = 2
"""How many stages at once, where nothing is said: faster than one, by benchmarks/jobs.json."""
AT_ONCE = "how many stages run at once; by default 2 on a CPU, and as many as the GPUs are for"


def main(jobs: Annotated[int | None, typer.Option(min=1, help=AT_ONCE)] = None) -> None:
    """Run what `dvc repro` would, at most so many stages at once, each in a DVC of its own.

    Every stage is run by `dvc repro --single-item` and under DVC's own locks, so that a run which
    is interrupted is one that `dvc repro` goes on from.
    """
    slots = devices(read_params().compute, jobs)
    order, waiting = plan()
    locked = _locked()
    try:
        failed = run(order, waiting, slots)
    finally:
        write_lock_order(locked, order)
    if failed:
        raise UserError(
            f"{' and '.join(failed)} failed, for what is said above; what ran beside it was let "
            "end, and nothing new was begun: put it right, then run this again"
        )
    print("Data and pipelines are up to date.")


def devices(compute: Compute, jobs: int | None) -> list[dict[str, str]]:
    """What each of the jobs finds in its environment: where there are several GPUs, its own."""
    if compute.device != "cuda":
        return [{}] * (jobs or ON_CPU)
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
        return [{}] * (jobs or 1)
    parts = [there[start : start + each] for start in range(0, len(there) - each + 1, each)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts[:jobs]]


def plan() -> tuple[list[str], dict[str, set[str]]]:
    """Ask DVC for all stages, as `finetune@l2-0.2-600-0`, in its own order, and what is to be run.

    Returns:
        The order; and of each stage that is out of date, or follows one, those it waits for.
    """
    from dvc.repo import Repo
    from dvc.repo.reproduce import get_active_graph, plan_repro

    with Repo(_wait_for_lock=True) as repo:
        graph = get_active_graph(repo.index.graph)
        order = plan_repro(graph)
        stale = set(repo.status())
    waiting: dict[str, set[str]] = {}
    for stage in order:
        needs = {str(read.addressing) for read in graph.successors(stage)} & waiting.keys()
        if needs or stage.addressing in stale:
            waiting[stage.addressing] = needs
    return [stage.addressing for stage in order], waiting


def run(order: list[str], waiting: dict[str, set[str]], slots: list[dict[str, str]]) -> list[str]:
    """Run all that waits, a stage a slot; after a failure nothing new. Return what failed."""
    work = TopologicalSorter(waiting)
    work.prepare()
    jobs: dict[int, tuple[str, dict[str, str], Popen[bytes]]] = {}
    ready: list[str] = []
    failed: list[str] = []
    pass_on(jobs)
    while work.is_active():
        ready = sorted([*ready, *work.get_ready()], key=order.index)
        while ready and slots and not failed:
            name, slot = ready.pop(0), slots.pop(0)
            command = [*DVC, "repro", "--single-item", name]
            process = Popen(command, env=os.environ | slot, start_new_session=True)
            # Kept, for of one that is not, `subprocess` itself may take the status.
            jobs[process.pid] = (name, slot, process)
        if not jobs:
            break
        pid, status = os.wait()
        name, slot, _ = jobs.pop(pid)
        slots.append(slot)
        if status:
            failed.append(name)
        else:
            work.done(name)
    return failed


def pass_on(jobs: dict[int, Any]) -> None:
    """Let an interruption reach the stages that run, and end when they have ended."""

    def stop(number: int, _frame: object) -> None:
        for process in jobs:
            with suppress(ProcessLookupError):  # it ended by itself just now
                os.killpg(process, number)
        with suppress(ChildProcessError):
            while True:
                os.wait()
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


# DVC appends to dvc.lock what it has not held yet, in the order in which stages end.


def write_lock_order(before: list[str], order: list[str]) -> None:
    """Give dvc.lock the order that one stage after the other would have given it."""
    from dvc.repo import Repo
    from dvc.utils.serialize import modify_yaml

    with Repo(_wait_for_lock=True) as repo, repo.lock:
        now = _locked()
        wanted = [name for name in dict.fromkeys([*before, *order, *now]) if name in now]
        if wanted != now:
            with modify_yaml("dvc.lock") as data:
                data["stages"] = {name: data["stages"][name] for name in wanted}


def _locked() -> list[str]:
    """The stages that dvc.lock holds."""
    from dvc.utils.serialize import load_yaml

    return list(load_yaml("dvc.lock").get("stages", {})) if Path("dvc.lock").exists() else []
