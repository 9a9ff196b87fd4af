"""Gradual pruning: equal steps to the same width, on the same questions, and to the same bytes."""

import csv
import itertools
import json
import random
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import PARAMS, Study
from regrow.model.folders import load_model, save_model
from regrow.model.mlps import find_mlps
from regrow.prune.steps import FIRST, step_widths
from regrow.retrain import gradual
from regrow.support.errors import UserError
from regrow.support.resume import STATES
from regrow.tasks.questions import write_labels, write_questions
from test_pipeline import FROM_PRUNE
from test_ranks import LAUNCH, environment
from test_resume import (
    ANSWERS,
    ASKED,
    Stopped,
    contents,
    run_killed,
    stop_after,
)
from tiny_models import regrow, tiny_config, tiny_model, tiny_tokenizer, write_params

# Of 48 neurons 12 stay: a quarter goes in each of three steps.
WIDTHS = [36, 24, 12]
LOSSES = ("finetune", "distill")


def prune(patch: Any, folder: Path, out: str, score: str, steps: int, **settings: Any) -> None:
    settings = {**PARAMS["prune"], "steps": steps, **settings}
    params = yaml.safe_load((folder / "params.yaml").read_text("utf-8"))
    text = yaml.safe_dump(params | {"prune": settings})
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    options = ("--teacher", "base", "--score", score, "--sparsity", "0.75")
    asked = ("--questions", "data/train.jsonl")
    assert regrow(patch, folder, "prune", *options, *asked, "--out", out) == 0


def arguments(loss: str, pruned: str) -> list[str]:
    own = {
        "finetune": ("--labels", "labels/train.jsonl"),
        "distill": ("--labels", "none", "--teacher-logits", "record", "--teacher", "base"),
    }[loss]
    return [
        *(loss, "--pruned", pruned, "--questions", "data/train.jsonl", *own, "--score", "l2"),
        *("--sparsity", "0.75", "--train-size", str(len(ASKED)), "--seed", "0"),
        *("--out", "out/result", "--log", "out/log"),
    ]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, its record, questions and labels; stages save whenever they can."""
    folder = tmp_path_factory.mktemp("prepared")
    training = PARAMS["training"] | {"batch_size": 4}
    rates = {"l2": 0.003, "activation": 0.003, "random": 0.003}
    write_params(
        folder,
        training=training,
        resume={"interval": 0.0},
        finetune={"learning_rate": rates},
        distill={"learning_rate": rates},
    )
    for name in ("data", "labels"):
        (folder / name).mkdir()
    write_questions(folder / "data" / "train.jsonl", ASKED)
    write_labels(folder / "labels" / "train.jsonl", ASKED, ANSWERS)
    save_model(tiny_model(tiny_config("llama")), tiny_tokenizer(), folder / "base")
    recorded = ("--questions", "data/train.jsonl", "--out", "record", "--choices", "c.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        assert regrow(patch, folder, "teacher_logits", "--teacher", "base", *recorded) == 0
        prune(patch, folder, "at once", "l2", 1)
        prune(patch, folder, "pruned", "l2", 3)
    return folder


@pytest.fixture
def place(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "place"))


def width(folder: Path) -> int:
    found: int = json.loads((folder / "config.json").read_text("utf-8"))["intermediate_size"]
    assert {mlp.gate_proj.out_features for mlp in find_mlps(load_model(folder, "float32", "cpu"))}
    return found


# The stage `prune`


def test_steps_are_equal_and_end_where_one_step_does() -> None:
    assert step_widths(48, 12, 1, 4) == [12]
    assert step_widths(48, 12, 3, 4) == WIDTHS
    assert step_widths(1536, 256, 4, 32) == [1216, 896, 576, 256]
    assert step_widths(1536, 480, 4, 32) == [1280, 1024, 736, 480]  # 1,272 and 744 are none
    assert step_widths(48, 48, 1, 4) == [48]
    with pytest.raises(UserError, match=r"prune.steps is 4, but from 48 neurons to 36 in mul"):
        step_widths(48, 36, 4, 4)


def test_the_model_that_is_pruned_at_once_is_the_same_beside_its_first_step(
    place: Path,
) -> None:
    alone, gradually = contents(place / "at once"), contents(place / "pruned")
    more = {name: content for name, content in gradually.items() if name not in alone}
    assert gradually == alone | more
    assert {name.partition("/")[0] for name in more} == {FIRST, "steps.json"}
    assert json.loads(more["steps.json"])["widths"] == WIDTHS
    assert width(place / "pruned" / FIRST) == WIDTHS[0]
    assert set(alone) == {name.partition("/")[2] for name in more} - {""}


# Retraining


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int]]]:
    """Of each training, the width of the model and the questions in their order."""
    found: list[tuple[int, list[int]]] = []
    whole = gradual.train

    def train(model: Any, task: Any, order: Sequence[int], *given: Any) -> Any:
        found.append((find_mlps(model)[0].gate_proj.out_features, list(order)))
        return whole(model, task, order, *given)

    monkeypatch.setattr(gradual, "train", train)
    return found


@pytest.mark.parametrize(
    ("loss", "score", "sequential"),
    [
        ("finetune", "l2", False),
        ("distill", "activation", False),
        ("finetune", "activation", True),
        ("distill", "random", False),
    ],
)
def test_a_model_is_pruned_on_between_parts_of_the_same_questions(
    loss: str, score: str, sequential: bool, place: Path, seen: Any, monkeypatch: Any
) -> None:
    prune(monkeypatch, place, "in three", score, 3, sequential=sequential)
    assert regrow(monkeypatch, place, *arguments(loss, "at once")) == 0
    shutil.rmtree(place / "out")
    assert regrow(monkeypatch, place, *arguments(loss, "in three")) == 0
    (_, whole), *parts = seen
    assert [neurons for neurons, _ in parts] == WIDTHS
    assert [place for _, part in parts for place in part] == whole
    # 42 questions are 11 steps, the last of which is short.
    assert [len(part) for _, part in parts] == [12, 16, 14]
    assert width(place / "out" / "result") == WIDTHS[-1]
    # One curve, whose rate rises from zero in every part.
    path = place / "out/log/plots/metrics/learning_rate.tsv"
    with path.open(encoding="utf-8") as lines:
        rows = [*csv.DictReader(lines, delimiter="\t")]
    assert [int(row["step"]) for row in rows] == list(range(1, 12))
    rates = [float(row["learning_rate"]) for row in rows]
    assert [step for step, rate in enumerate(rates) if rate == 0] == [0, 3, 7]
    assert not any((place / STATES).iterdir())


def test_each_step_scores_the_neurons_as_they_are_by_then(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}
    whole = gradual.prune_on

    def prune_on(model: Path, steps: Any, step: int, *given: Any) -> None:
        whole(model, steps, step, *given)
        before, after = (load_model(path, "float32", "cpu") for path in (model, given[-1]))
        for old, new in zip(find_mlps(before), find_mlps(after), strict=True):
            # The L2 norm by hand, of the weights that this step's training left.
            squares = sum(p.weight.double().square().sum(1) for p in (old.gate_proj, old.up_proj))
            norms = squares + old.down_proj.weight.double().square().sum(0)
            kept = sorted(norms.argsort(descending=True)[: steps.widths[step - 1]].tolist())
            assert (new.gate_proj.weight == old.gate_proj.weight[kept]).all()
        found[str(step)] = after

    monkeypatch.setattr(gradual, "prune_on", prune_on)
    assert regrow(monkeypatch, place, *arguments("finetune", "pruned")) == 0
    assert list(found) == ["2", "3"]


def test_more_steps_of_pruning_than_of_training_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments("finetune", "pruned")
    given[given.index("--train-size") + 1] = "8"
    said = str(regrow(monkeypatch, place, *given))
    assert said.startswith("regrow finetune: prune.steps is 3, but there are only 2 steps of train")
    assert "\n" not in said and not (place / "out").exists()


def test_a_first_step_of_other_code_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "pruned/steps.json"
    values = json.loads(path.read_text("utf-8")) | {"code": "0" * 64}
    path.write_text(json.dumps(values), "utf-8")
    said = str(regrow(monkeypatch, place, *arguments("distill", "pruned")))
    assert said.startswith("regrow distill: pruned was pruned by other code than there is now")
    assert "\n" not in said and not (place / "out").exists()


# Going on


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("least", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_killed_at_random_points_it_goes_on_to_the_same_bytes(
    loss: str, least: int, place: Path, tmp_path: Path
) -> None:
    expected, seconds = whole_run(place, tmp_path, loss)
    draw = random.Random(f"{loss} {least}")
    kills = runs = 0
    while kills < least:
        runs += 1
        folder = Path(shutil.copytree(place, tmp_path / f"killed-{runs}"))
        for attempt in range(100):
            patience = draw.uniform(0.1, 1.0) * seconds * 1.02**attempt
            if run_killed(folder, arguments(loss, "pruned"), patience):
                break
            kills += 1
            shutil.rmtree(folder / "out", ignore_errors=True)
        assert contents(folder / "out") == expected
        assert not any((folder / STATES).iterdir())


def whole_run(place: Path, tmp_path: Path, loss: str) -> tuple[dict[str, bytes], float]:
    folder = Path(shutil.copytree(place, tmp_path / "whole"))
    began = time.monotonic()
    assert run_killed(folder, arguments(loss, "pruned"), 300)
    return contents(folder / "out"), time.monotonic() - began


# 11 steps, all but each part's last are saved, and so are two whole parts: 1 and 2, 3; 4, 5, 6 …
@pytest.mark.parametrize(("saves", "words"), [(2, "checkpoint-2"), (3, "step 2"), (5, "step 2")])
def test_it_says_where_it_goes_on(
    saves: int, words: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = whole_run(place, tmp_path, "finetune")
    stop_after(monkeypatch, saves)
    with pytest.raises(Stopped):
        regrow(monkeypatch, place, *arguments("finetune", "pruned"))
    monkeypatch.undo()
    shutil.rmtree(place / "out", ignore_errors=True)
    assert run_killed(place, arguments("finetune", "pruned"), 300)
    printed = (place / "printed").read_text("utf-8")
    assert words in printed
    assert ("checkpoint-2" in printed) == (saves != 3)
    assert contents(place / "out") == expected


def test_a_damaged_model_of_a_step_starts_anew(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = whole_run(place, tmp_path, "distill")
    stop_after(monkeypatch, 5)
    with pytest.raises(Stopped):
        regrow(monkeypatch, place, *arguments("distill", "pruned"))
    monkeypatch.undo()
    (weights,) = (place / STATES).glob("*/*/step-2/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    shutil.rmtree(place / "out", ignore_errors=True)
    assert run_killed(place, arguments("distill", "pruned"), 300)
    assert "is damaged" in (place / "printed").read_text("utf-8")
    assert contents(place / "out") == expected


# Several processes


@pytest.mark.slow
@pytest.mark.parametrize("shard", [True, False])
def test_ranks_prune_on_together(
    shard: bool, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune(monkeypatch, place, "in three", "activation", 3)
    assert regrow(monkeypatch, place, *arguments("finetune", "in three")) == 0
    many = Path(shutil.copytree(place, tmp_path / "many"))
    shutil.rmtree(many / "out")
    params = yaml.safe_load((many / "params.yaml").read_text("utf-8"))
    params["compute"] |= {"processes": 2, "shard": shard}
    (many / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")
    command = [*LAUNCH, "2", "-m", "--", "regrow", *arguments("finetune", "in three")]
    done = subprocess.run(
        command, cwd=many, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert width(many / "out/result") == WIDTHS[-1]
    losses = []
    for folder in (place, many):
        with (folder / "out/log/plots/metrics/loss.tsv").open(encoding="utf-8") as lines:
            losses.append([float(row["loss"]) for row in csv.DictReader(lines, delimiter="\t")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


# Under DVC

CELL = {"prune@l2-0.5", "finetune@l2-0.5-8-0", "distill@l2-0.5-8-0"}


def of_cell(study: Study) -> dict[str, bytes]:
    return {path: content for path, content in study.outputs().items() if "/l2-0.5" in path}


def test_an_edit_of_a_score_reruns_retraining_where_it_prunes_too(study: Study) -> None:
    # Where it does not, test_pipeline.py holds what one line of each room reruns.
    study.set(prune__steps=2, training__epochs=2)
    assert set(study.repro(*CELL)) == CELL
    before = of_cell(study)
    with (study.root / "src/regrow/prune/scores.py").open("a", encoding="utf-8") as code:
        code.write("\n# A comment.\n")
    assert set(study.repro(*CELL)) == CELL
    after = of_cell(study)
    changed = {path for path in before if before[path] != after[path]}
    assert changed == {"models/pruned/l2-0.5/steps.json"}


@pytest.mark.slow
def test_a_whole_study_prunes_in_two_steps(study: Study) -> None:
    study.set(prune__steps=2, training__epochs=2)
    before = study.outputs()
    assert set(study.repro()) == FROM_PRUNE
    after = study.outputs()
    # The model that is pruned at once is the same, and so is what it says.
    assert all(after[path] == before[path] for path in before if "pruned/" in path)
    for loss, run in itertools.product(LOSSES, ("l2-0.25-8-0", "l2-0.5-8-0")):
        weights = f"models/{loss}/{run}/model.safetensors"
        assert len(after[weights]) == len(before[weights]) and after[weights] != before[weights]
    assert study.repro() == []
