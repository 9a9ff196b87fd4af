"""Killed at random points, every stage that takes long goes on and writes the same bytes."""

import os
import random
import runpy
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tqdm import tqdm

from conftest import PARAMS
from regrow.model.folders import save_model
from regrow.support.files import write_json
from regrow.support.resume import STATES, Unfinished, unfinished
from regrow.tasks.questions import write_labels, write_questions
from tiny_models import QUESTIONS, regrow, tiny_config, tiny_model, tiny_tokenizer, write_params

ASKED = [
    type(question)(f"{copy}-{question.id}", question.stem, question.choices)
    for copy in range(6)
    for question in QUESTIONS
]
ANSWERS = [place % len(question.choices) for place, question in enumerate(ASKED)]
TRAINED = ("--questions", "data/train.jsonl")
RUN = ("--train-size", str(len(ASKED)), "--seed", "0", "--score", "l2", "--sparsity", "0.25")
STAGES = {
    "teacher": ("--base", "base", *TRAINED, "--labels", "labels/train.jsonl", "--log", "out/log"),
    "finetune": (
        *("--pruned", "base", *TRAINED, "--labels", "labels/train.jsonl", *RUN),
        *("--log", "out/log"),
    ),
    "distill": (
        *("--pruned", "base", *TRAINED, "--teacher-logits", "record", *RUN),
        *("--teacher", "base", "--labels", "labels/distill-all.jsonl"),
        *("--log", "out/log"),
    ),
    "teacher_logits": ("--teacher", "base", *TRAINED, "--choices", "out/choices.jsonl"),
    "evaluate": (
        *("--model", "base", "--questions", "data", "--labels", "labels"),
        *("--transfer", "transfer", "--metrics", "out/metrics.json"),
    ),
}


class Stopped(BaseException):
    """What stops a process in the middle of its work; nobody catches it."""


def arguments(stage: str) -> list[str]:
    option, name = ("--predictions", "p.parquet") if stage == "evaluate" else ("--out", "result")
    return [stage, *STAGES[stage], option, f"out/{name}"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what every stage reads; each stage saves whenever it can."""
    folder = tmp_path_factory.mktemp("prepared")
    training = PARAMS["training"] | {"batch_size": 2}
    teacher = {"training": training}
    write_params(folder, training=training, teacher=teacher, resume={"interval": 0.0})
    for name in ("train", "calibration", "test"):
        (folder / "data").mkdir(exist_ok=True)
        (folder / "labels").mkdir(exist_ok=True)
        write_questions(folder / "data" / f"{name}.jsonl", ASKED)
        write_labels(folder / "labels" / f"{name}.jsonl", ASKED, ANSWERS)
    # The splits of a study share no question.
    calibration = [type(q)(f"c-{q.id}", q.stem, q.choices) for q in ASKED]
    write_questions(folder / "data/calibration.jsonl", calibration)
    write_labels(folder / "labels/calibration.jsonl", calibration, ANSWERS)
    write_labels(folder / "labels/distill-all.jsonl", [], [])
    write_json(folder / "transfer" / "sets.json", {"sets": []})
    save_model(tiny_model(tiny_config("llama")), tiny_tokenizer(), folder / "base")
    with pytest.MonkeyPatch.context() as patch:
        small_batches(patch)
        done = regrow(
            patch,
            folder,
            *("teacher_logits", "--teacher", "base", *TRAINED, "--out", "record"),
            *("--choices", "unused.jsonl"),
        )
    assert done == 0
    return folder


def small_batches(patch: pytest.MonkeyPatch) -> None:
    """Many batches, so that there are many points to be killed at."""
    from regrow.distill import writer
    from regrow.model import scoring

    for function in (scoring.score_choices, writer.record):
        defaults = [100 if isinstance(value, int) else value for value in function.__defaults__]
        patch.setattr(function, "__defaults__", tuple(defaults))


def run_killed(folder: Path, stage: str | list[str], seconds: float) -> bool:
    """Run a stage in a process of its own and kill it after `seconds`; whether it was done."""
    given = arguments(stage) if isinstance(stage, str) else stage
    child = os.fork()
    if child == 0:
        # Nothing of pytest's may run in here.
        try:
            os.chdir(folder)
            sys.stdout = sys.stderr = (folder / "printed").open("a", buffering=1, encoding="utf-8")
            sys.argv = ["regrow", *given]
            torch.set_num_threads(1)
            # tqdm's own lock is a semaphore that forks share: who is killed with it keeps it.
            tqdm.set_lock(threading.RLock())
            runpy.run_module("regrow", run_name="__main__")
            os._exit(0)
        except SystemExit as ended:
            os._exit(1 if ended.code else 0)
        except BaseException:
            os._exit(2)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, (folder / "printed").read_text("utf-8")[-3000:]
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def uninterrupted(prepared: Path, folder: Path, stage: str) -> tuple[dict[str, bytes], float]:
    """What a stage writes, and how long it takes."""
    shutil.copytree(prepared, folder)
    started = time.monotonic()
    assert run_killed(folder, stage, 300)
    assert not any((folder / STATES).iterdir())
    return contents(folder / "out"), time.monotonic() - started


@pytest.mark.parametrize("least", [1, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_at_random_points_goes_on_to_the_same_bytes(
    stage: str, least: int, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_batches(monkeypatch)
    expected, duration = uninterrupted(prepared, tmp_path / "whole", stage)
    draw = random.Random(f"{stage} {least}")
    kills = runs = 0
    while kills < least:
        runs += 1
        folder = tmp_path / f"killed-{runs}"
        shutil.copytree(prepared, folder)
        # Growing patience, so that a stage that starts anew each time would not end.
        for attempt in range(100):
            if run_killed(folder, stage, draw.uniform(0.1, 1.0) * duration * 1.02**attempt):
                break
            kills += 1
            shutil.rmtree(folder / "out", ignore_errors=True)  # as DVC does before a run
        assert contents(folder / "out") == expected
        assert not any((folder / STATES).iterdir())
    print(f"{stage}: {kills} kills, {runs} runs to the end, all of the same bytes")


def test_an_interrupted_training_says_where_it_goes_on(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = uninterrupted(prepared, tmp_path / "whole", "finetune")
    folder = tmp_path / "stopped"
    shutil.copytree(prepared, folder)
    stop_after(monkeypatch, 5)
    with pytest.raises(Stopped):
        regrow(monkeypatch, folder, *arguments("finetune"))
    monkeypatch.undo()
    assert run_killed(folder, "finetune", 300)
    printed = (folder / "printed").read_text("utf-8")
    assert "goes on from its checkpoint-5" in printed and "100%" in printed
    assert contents(folder / "out") == expected


def stop_after(patch: pytest.MonkeyPatch, saves: int) -> None:
    """Interrupt the process at the `saves`-th save."""
    kept: Callable[[Unfinished], None] = Unfinished.saved
    count = 0

    def saved(self: Unfinished) -> None:
        nonlocal count
        kept(self)
        count += 1
        if count == saves:
            raise Stopped

    patch.setattr(Unfinished, "saved", saved)


def test_a_changed_parameter_never_goes_on_from_a_stale_state(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(prepared, changed)
    set_rate(changed)
    expected, _ = uninterrupted(changed, tmp_path / "whole", "finetune")
    folder = tmp_path / "stopped"
    shutil.copytree(prepared, folder)
    stop_after(monkeypatch, 5)
    with pytest.raises(Stopped):
        regrow(monkeypatch, folder, *arguments("finetune"))
    monkeypatch.undo()
    assert len(list((folder / STATES).glob("*/*"))) == 1
    set_rate(folder)
    assert run_killed(folder, "finetune", 300)
    assert "goes on" not in (folder / "printed").read_text("utf-8")
    assert contents(folder / "out") == expected
    assert not any((folder / STATES).iterdir())


def set_rate(folder: Path) -> None:
    params: dict[str, Any] = yaml.safe_load((folder / "params.yaml").read_text("utf-8"))
    params["finetune"]["learning_rate"]["l2"] = 0.004
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def test_a_checkpoint_that_was_not_saved_whole_is_not_used(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = uninterrupted(prepared, tmp_path / "whole", "distill")
    folder = tmp_path / "stopped"
    shutil.copytree(prepared, folder)
    stop_after(monkeypatch, 4)
    with pytest.raises(Stopped):
        regrow(monkeypatch, folder, *arguments("distill"))
    monkeypatch.undo()
    (state,) = (folder / STATES).glob("*/*")
    torn = shutil.copytree(state / "checkpoint-4", state / "checkpoint-10")
    (torn / "model.safetensors").write_bytes(b"")
    assert run_killed(folder, "distill", 300)
    assert "goes on from its checkpoint-4" in (folder / "printed").read_text("utf-8")
    assert contents(folder / "out") == expected


@pytest.mark.parametrize("change", ["input", "setting", "output", "nothing"])
def test_state_is_kept_for_the_same_work_alone(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("input").mkdir()
    Path("input/file").write_text("one", encoding="utf-8")

    def work(out: str, setting: int) -> Any:
        with unfinished(Path(out), [Path("input")], [setting, "cloze"], 0) as state:
            found = state.read()
            state.write({"done": [0.1, 2.5e-300]})
            raise KeyboardInterrupt(found)

    with pytest.raises(KeyboardInterrupt) as first:
        work("a/out", 1)
    assert first.value.args == (None,)
    if change == "input":
        Path("input/file").write_text("two", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt) as second:
        work("b/out" if change == "output" else "a/out", 2 if change == "setting" else 1)
    expected = {"done": [0.1, 2.5e-300]} if change == "nothing" else None
    assert second.value.args == (expected,)
    assert len(list(STATES.glob("*/*"))) == (2 if change == "output" else 1)


def test_a_state_is_due_after_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    state = Unfinished(tmp_path, 120)
    assert not state.due()
    now = 219.0
    assert not state.due()
    now = 220.0
    assert state.due()
    state.saved()
    assert not state.due()
