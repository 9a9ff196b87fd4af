"""From the start of a process to its first batch, and `dvc repro` with nothing to do."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import stages
from benchmarks.common import Bench
from benchmarks.contest import NotMeasuredError
from benchmarks.results import Measure, Row, Target

GROUP = "startup"
BATCH = "regrow.model.forward:read_rows!"  # whose first call begins the first batch


def rows(bench: Bench) -> Iterator[Row]:
    """Every stage that loads a model, those that do not, and DVC."""
    yield from starts(bench, "a stage that loads a model", _with_model(bench), 4.0)
    yield from starts(bench, "a stage that loads none", _without_model(bench), 1.5)
    yield no_op(bench)


Commands = dict[str, tuple[stages.Command, str]]


def _with_model(bench: Bench) -> Commands:
    """The stages' commands, and the function whose first call begins the first batch."""
    sparsity = bench.params.sweep.sparsity[0]
    files = bench.take("train", min(bench.questions, 16))
    asked, count, record = files.questions, files.count, bench.scratch / "record-startup"
    bench.stage(*stages.teacher_logits(bench.teacher, asked, record))
    again = bench.scratch / "record-again"
    commands = {
        "evaluate": stages.evaluate(bench.teacher, files, bench.scratch / "evaluated"),
        "teacher_logits": stages.teacher_logits(bench.teacher, asked, again),
        "finetune": stages.finetune(bench, sparsity, asked, files.labels, count),
        "distill": stages.distill(bench, sparsity, record, asked, count),
    }
    return {name: (command, BATCH) for name, command in commands.items()}


def _without_model(bench: Bench) -> Commands:
    """A stage without a model has no batch: it has begun when it reads its first data."""
    folder = bench.scratch / "predictions"
    sweep = bench.params.sweep.model_dump(mode="json")
    settings = {"folder": str(folder), "sweep": sweep, "test": 8, "calibration": 8}
    bench.once("benchmarks.growth:simulate", settings)
    read = "regrow.evaluate.predictions:read_predictions!"
    return {
        "questions": (stages.questions(bench.scratch / "started"), "regrow.sources.uris:resolved!"),
        "compare": (stages.compare(bench, folder), read),
    }


def starts(bench: Bench, kind: str, commands: Commands, limit: float) -> Iterator[Row]:
    """The stages by turns; each has to keep the limit."""
    target = Target.most(limit, f"<= {limit:g} s")
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    faults: dict[str, str] = {}
    for number in range(bench.repeats + 1):
        for name, (command, first) in commands.items():
            if name in faults:
                continue
            try:
                begun = bench.stage(*command, first=first).first
            except NotMeasuredError as fault:
                faults[name] = str(fault)
                continue
            if begun is None:
                faults[name] = f"{first} was never called"
            elif number:
                seconds[name].append(begun)
    for name, values in seconds.items():
        row = Row(group=GROUP, name=f"process start to first batch, {kind}: {name}", target=target)
        if name in faults:
            yield row.model_copy(update={"not_measured": faults[name]})
        else:
            measure = Measure(what="regrow", unit="s", values=values)
            yield row.model_copy(update={"ours": measure})


def no_op(bench: Bench) -> Row:
    """`dvc repro` of the reproduced study, by turns with that of an empty pipeline.

    The empty one has as many stages, each of which depends on one empty file and wrote another.
    """
    name = "no-op dvc repro"
    target = Target.most(1.4, "<= 1.4x")
    try:
        number_of_stages = _nothing_to_do(bench)
        empty = bench.scratch / "empty"
        _empty_pipeline(bench, empty, number_of_stages)
        seconds: dict[Path, list[float]] = {bench.root: [], empty: []}
        for number in range(bench.repeats + 1):
            for folder, values in seconds.items():
                started = time.monotonic()
                _dvc(bench, folder, "repro", "--quiet")
                if number:
                    values.append(time.monotonic() - started)
    except NotMeasuredError as fault:
        return Row(group=GROUP, name=name, target=target, not_measured=str(fault))
    return Row(
        group=GROUP,
        name=name,
        ours=Measure(what="this study", unit="s", values=seconds[bench.root]),
        against=Measure(what="an empty pipeline", unit="s", values=seconds[empty]),
        ratio="ours / against",
        target=target,
        notes={"stages": number_of_stages},
    )


def _nothing_to_do(bench: Bench) -> int:
    """How many stages the study has; all must be up to date, for nothing is to be run here."""
    root = bench.root
    if not (root / "dvc.yaml").is_file():
        raise NotMeasuredError("there is no dvc.yaml here")
    printed = _dvc(bench, root, "repro", "--dry")
    if "Running stage" in printed or "is cached" in printed:
        raise NotMeasuredError("the study here is not up to date; run `make repro` first")
    return len(_dvc(bench, root, "stage", "list", "--name-only").split())


def _empty_pipeline(bench: Bench, folder: Path, count: int) -> None:
    """A repository of its own under DVC, run once."""
    folder.mkdir()
    described = {
        f"stage{number}": {"cmd": f"touch out{number}", "deps": ["in"], "outs": [f"out{number}"]}
        for number in range(count)
    }
    # JSON is YAML.
    (folder / "dvc.yaml").write_text(json.dumps({"stages": described}), encoding="utf-8")
    (folder / "in").touch()
    _run(bench, folder, "git", "init", "--quiet")
    _dvc(bench, folder, "init", "--quiet")
    _dvc(bench, folder, "config", "core.analytics", "false")
    _dvc(bench, folder, "repro", "--quiet")


def _dvc(bench: Bench, folder: Path, *arguments: str) -> str:
    return _run(bench, folder, str(bench.python), "-m", "dvc", *arguments)


def _run(bench: Bench, folder: Path, *command: str) -> str:
    # `python` of dvc.yaml is the one that runs DVC.
    path = os.pathsep.join([str(bench.python.parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        said = done.stdout.strip().splitlines() or [f"status {done.returncode}"]
        raise NotMeasuredError(f"{' '.join(command[-2:])} failed: {said[-1][:200]}")
    return done.stdout
