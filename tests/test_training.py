"""Both losses train on what they claim, in the same order, and equal runs give equal bytes."""

import csv
import itertools
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from conftest import PARAMS
from regrow.distill.divergence import distillation_task
from regrow.distill.reader import Record
from regrow.distill.writer import record
from regrow.model.folders import save_model
from regrow.model.forward import output_layer, row_logits
from regrow.model.trees import build_trees, flat_rows, pack
from regrow.prune.scores import SCORES, Neurons
from regrow.retrain.cross_entropy import finetuning_task
from regrow.retrain.order import question_order
from regrow.retrain.trainer import Task, summed_loss, train
from regrow.support.errors import UserError
from regrow.support.params import read_params
from regrow.support.resume import STATES, Unfinished
from regrow.support.schema import Compute, Positions, Training
from regrow.tasks.questions import Question, write_labels, write_questions
from tiny_models import (
    QUESTIONS,
    regrow,
    sequences,
    tiny_config,
    tiny_model,
    tiny_tokenizer,
    write_params,
)

# One of them long: training needs no more.
ASKED: tuple[Question, ...] = tuple(
    replace(question, id=f"{question.id} {number}", stem=f"{number}. {question.stem}")
    for number in range(2)
    for question in QUESTIONS
    if question.id != "long" or number == 0
)
IDS = [question.id for question in ASKED]
ANSWERS = [number % len(question.choices) for number, question in enumerate(ASKED)]
TREES = build_trees(tiny_tokenizer(), ASKED, "cloze")
SETTINGS = Training(
    batch_size=4,
    epochs=1,
    steps=None,
    warmup=0.25,
    schedule="linear",
    weight_decay=0.0,
    max_grad_norm=1.0,
)

COMPUTE = Compute(**PARAMS["compute"])


@cache
def student(dtype: torch.dtype = torch.float32, architecture: str = "llama") -> Any:
    """A student; train a copy."""
    return tiny_model(tiny_config(architecture), dtype)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Positions], Record]:
    """Whole records of another model's distributions."""
    folder = tmp_path_factory.mktemp("records")
    teacher = tiny_model(tiny_config("llama"), seed=1)

    @cache
    def make(positions: Positions) -> Record:
        state = Unfinished(folder, math.inf)
        record(teacher, IDS, TREES, positions, folder / positions, state)
        return Record(folder / positions, lambda: output_layer(teacher))

    return make


# Losses of a batch, from separate sequences through the unchanged model


def gold(place: int, positions: Positions) -> tuple[torch.Tensor, torch.Tensor]:
    """A question with its gold choice as transformers takes it: token ids and labels, [1, n]."""
    shared, wholes = sequences(tiny_tokenizer(), ASKED[place], "cloze")
    ids = torch.tensor([wholes[ANSWERS[place]]])
    labels = ids.clone()
    if positions == "answer":
        labels[:, :shared] = -100
    return ids, labels


def plain_cross_entropy(model: Any, places: Sequence[int], positions: Positions) -> torch.Tensor:
    """The mean of -log p over the labels of all questions, each alone, in the model's precision."""
    total: Any = 0
    tokens = 0
    for ids, labels in (gold(place, positions) for place in places):
        logits = model(ids).logits[0, :-1]
        total = total + F.cross_entropy(logits, labels[0, 1:], reduction="sum")
        tokens += int((labels[:, 1:] != -100).sum())
    return total / tokens


def own_cross_entropy(model: Any, places: Sequence[int], positions: Positions) -> torch.Tensor:
    """The same by transformers' own loss, which is in single precision."""
    batch = [gold(place, positions) for place in places]
    counts = [int((labels[:, 1:] != -100).sum()) for _, labels in batch]
    losses = [model(ids, labels=labels).loss for ids, labels in batch]
    total = sum(loss * count for loss, count in zip(losses, counts, strict=True))
    return total / sum(counts)


def plain_kl(
    model: Any, places: Sequence[int], recorded: Record, temperature: float
) -> torch.Tensor:
    """KL to the recorded distributions, of each context and each choice alone."""
    parts = []
    for place in places:
        shared, wholes = sequences(tiny_tokenizer(), ASKED[place], "cloze")
        logits = [model(torch.tensor([tokens])).logits[0] for tokens in wholes]
        first = 0 if recorded.layout.positions == "all" else shared - 1
        parts.append(logits[0][first:shared])
        parts += [branch[shared:-1] for branch in logits]
    softened = torch.cat(parts) / temperature
    rows = np.concatenate([recorded.rows(IDS[place]) for place in places])
    targets = recorded.targets(rows, temperature).log_probs
    kl = F.kl_div(softened.log_softmax(-1), targets, reduction="sum", log_target=True)
    return kl * temperature**2 / len(softened)


def task_loss(model: Any, task: Task, places: Sequence[int]) -> torch.Tensor:
    """The loss that the trainer computes for a batch."""
    return summed_loss(model, task, places) / task.rows(places)


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(
    model: Any, loss: torch.Tensor, expected: torch.Tensor, tolerance: float
) -> None:
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=tolerance)
    found, reference = gradients(model, loss), gradients(model, expected)
    assert found.keys() == reference.keys()
    for name, gradient in reference.items():
        error = (found[name] - gradient).norm() / gradient.norm()
        assert error < tolerance, name


@pytest.mark.parametrize("architecture", ["llama", "olmo2"])
@pytest.mark.parametrize("positions", ["answer", "all"])
def test_cross_entropy_and_its_gradient_equal_transformers_own_on_separate_sequences(
    positions: Positions, architecture: str
) -> None:
    model = student(torch.float64, architecture)
    places = [3, 0, 6, 2]
    task = finetuning_task(TREES, ANSWERS, positions)
    expected = plain_cross_entropy(model, places, positions)
    assert_same_gradients(model, task_loss(model, task, places), expected, 1e-6)
    expected = own_cross_entropy(model, places, positions)
    assert_same_gradients(model, task_loss(model, task, places), expected, 1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("positions", ["answer", "all"])
def test_kl_and_its_gradient_equal_those_of_separate_sequences(
    positions: Positions, temperature: float, recorded: Any
) -> None:
    model = student(torch.float64)
    places = [3, 0, 6, 2]
    task = distillation_task(TREES, IDS, recorded(positions), temperature, "forward_kl")
    expected = plain_kl(model, places, recorded(positions), temperature)
    assert_same_gradients(model, task_loss(model, task, places), expected, 1e-6)


@pytest.mark.parametrize("positions", ["answer", "all"])
def test_kl_on_the_gold_branch_is_that_of_context_and_gold_choice_alone(
    positions: Positions, recorded: Any
) -> None:
    model = student(torch.float64)
    places = [3, 0, 6, 2]
    kept = recorded(positions)
    task = distillation_task(TREES, IDS, kept, 2.0, "forward_kl", ANSWERS)
    teacher = tiny_model(tiny_config("llama"), torch.float64, seed=1)
    parts = []
    for place in places:
        ids, labels = gold(place, positions)
        rows = (labels[0, 1:] != -100).nonzero()[:, 0]
        found, said = (which(ids).logits[0, rows] / 2.0 for which in (model, teacher))
        parts.append(
            F.kl_div(found.log_softmax(-1), said.log_softmax(-1), reduction="none", log_target=True)
        )
    rows = torch.cat(parts)
    expected = 4.0 * rows.sum() / len(rows)
    assert_same_gradients(model, task_loss(model, task, places), expected, 1e-5)


def test_a_batch_of_one_question_works() -> None:
    model = student(torch.float64)
    loss = task_loss(model, finetuning_task(TREES, ANSWERS, "answer"), [2])
    expected = plain_cross_entropy(model, [2], "answer")
    assert float(loss.detach()) == pytest.approx(float(expected.detach()))


# The order


sizes = st.integers(1, 60)


@given(sizes, sizes, st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_every_epoch_is_a_permutation_of_the_same_questions(
    questions: int, train_size: int, epochs: int, seed: int
) -> None:
    train_size = min(train_size, questions)
    order = question_order(questions, train_size, epochs, seed)
    parts = [order[start : start + train_size] for start in range(0, len(order), train_size)]
    assert len(parts) == epochs
    for part in parts:
        assert len(set(part)) == train_size
        assert set(part) == set(parts[0]) <= set(range(questions))
    # More epochs leave the earlier ones as they were.
    assert order == question_order(questions, train_size, epochs + 1, seed)[: len(order)]


@given(st.integers(1, 60), st.data(), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_a_smaller_train_size_is_a_subset_of_a_larger(
    questions: int, data: st.DataObject, seed: int
) -> None:
    larger = data.draw(st.integers(1, questions))
    smaller = data.draw(st.integers(1, larger))
    chosen = question_order(questions, larger, 1, seed)
    assert question_order(questions, smaller, 1, seed) == chosen[:smaller]


def test_the_order_is_seeded_and_each_seed_and_epoch_its_own() -> None:
    np.random.seed(1)
    orders = [question_order(50, 50, 3, seed) for seed in range(20)]
    np.random.seed(2)
    assert orders == [question_order(50, 50, 3, seed) for seed in range(20)]
    epochs = [tuple(order[start : start + 50]) for order in orders for start in (0, 50, 100)]
    assert len(set(epochs)) == 60


def test_every_question_is_about_as_often_chosen() -> None:
    chosen = [place for seed in range(400) for place in question_order(20, 5, 1, seed)]
    counts = np.bincount(chosen, minlength=20)
    # 100 expected; binomial, five standard deviations.
    assert abs(counts - 100).max() < 5 * math.sqrt(400 * 0.25 * 0.75)


def test_a_train_size_larger_than_the_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"holds 5 questions.*train size of 6"):
        question_order(5, 6, 1, 0)


# Runs


def trained(
    task: Task,
    log: Path,
    *,
    settings: Training = SETTINGS,
    model: Any = None,
    learning_rate: float = 1e-3,
    order: Sequence[int] | None = None,
) -> Any:
    """A copy of the student after training."""
    copy = deepcopy(student() if model is None else model)
    if order is None:
        order = question_order(len(ASKED), len(ASKED), settings.epochs, 0)
    state = Unfinished(log.parent / "state", math.inf)
    train(copy, task, order, learning_rate, settings, COMPUTE, 0, log, state)
    return copy


def column(log: Path, name: str) -> list[float]:
    with (log / "plots" / "metrics" / f"{name}.tsv").open(encoding="utf-8") as lines:
        return [float(row[name]) for row in csv.DictReader(lines, delimiter="\t")]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def tasks(recorded: Any) -> dict[str, Task]:
    return {
        "finetune": finetuning_task(TREES, ANSWERS, "answer"),
        "distill": distillation_task(TREES, IDS, recorded("answer"), 1.0, "forward_kl"),
    }


def rate_at(step: int, steps: int, settings: Training, highest: float) -> float:
    """The schedule by hand, for steps counted from 0."""
    warm = math.ceil(settings.warmup * steps)
    if step < warm:
        return highest * step / warm
    share = (step - warm) / (steps - warm)
    return (
        highest
        * {
            "linear": 1 - share,
            "cosine": (1 + math.cos(math.pi * share)) / 2,
            "constant": 1.0,
        }[settings.schedule]
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("loss", ["finetune", "distill"])
def test_training_equals_a_plain_loop_over_separate_sequences(
    loss: str, schedule: Any, tasks: dict[str, Task], recorded: Any, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(
        update={"schedule": schedule, "weight_decay": 0.1, "max_grad_norm": 0.5}
    )
    order = question_order(len(ASKED), 10, 2, 0)
    model = student(torch.float64)
    found = trained(tasks[loss], tmp_path, settings=settings, model=model, order=order)

    plain = deepcopy(model)
    decayed = [p for p in plain.parameters() if p.dim() > 1]
    others = [p for p in plain.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    )
    losses, norms, rates = [], [], []
    for step in range(5):
        places = order[4 * step : 4 * step + 4]
        if loss == "finetune":
            value = plain_cross_entropy(plain, places, "answer")
        else:
            value = plain_kl(plain, places, recorded("answer"), 1.0)
        optimizer.zero_grad()
        value.backward()
        losses.append(float(value.detach()))
        norms.append(float(torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)))
        rates.append(rate_at(step, 5, settings, 1e-3))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        optimizer.step()
    assert max(norms) > 0.5, "nothing was clipped: this test would show less"

    assert column(tmp_path, "loss") == pytest.approx(losses, rel=1e-6)
    assert column(tmp_path, "grad_norm") == pytest.approx(norms, rel=1e-5)
    assert column(tmp_path, "learning_rate") == pytest.approx(rates, rel=1e-9, abs=1e-12)
    for (name, one), other in zip(found.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7, msg=name)


@pytest.mark.parametrize("loss", ["finetune", "distill"])
def test_a_run_repeated_gives_equal_bytes(
    loss: str, tasks: dict[str, Task], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        torch.manual_seed(len(name) + (name == "two"))
        model = trained(tasks[loss], tmp_path / name / "log")
        save_model(model, tiny_tokenizer(), tmp_path / name / "model")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert "model/model.safetensors" in one
    assert one == two
    save_model(student(), tiny_tokenizer(), tmp_path / "before")
    assert one["model/model.safetensors"] != contents(tmp_path / "before")["model.safetensors"]


def test_both_losses_see_the_same_questions_in_the_same_order_for_as_many_steps(
    tasks: dict[str, Task], tmp_path: Path
) -> None:
    order = question_order(len(ASKED), 10, 2, 0)
    seen: dict[str, list[list[int]]] = {name: [] for name in tasks}
    for name, task in tasks.items():

        def loss(
            logits: torch.Tensor,
            places: Sequence[int],
            task: Task = task,
            here: list[list[int]] = seen[name],
        ) -> torch.Tensor:
            here.append(list(places))
            return task.loss(logits, places)

        trained(replace(task, loss=loss), tmp_path / name, order=order)
    # A loss is asked for its questions in parts, of as many rows as it reads of them.
    asked = {name: [place for part in parts for place in part] for name, parts in seen.items()}
    assert asked["finetune"] == asked["distill"] == list(order)
    assert len(column(tmp_path / "finetune", "loss")) == 5
    assert len(column(tmp_path / "distill", "loss")) == 5


@pytest.mark.parametrize("loss", ["finetune", "distill"])
def test_the_loss_goes_down(loss: str, tasks: dict[str, Task], tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 6})
    model = trained(tasks[loss], tmp_path, settings=settings, learning_rate=5e-3)
    every = range(len(ASKED))
    with torch.no_grad():
        before = float(task_loss(student(), tasks[loss], every))
        after = float(task_loss(model, tasks[loss], every))
    assert after < 0.8 * before
    assert not model.training


@pytest.mark.parametrize("loss", ["finetune", "distill"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_and_names_step_and_rate(
    value: float, loss: str, tasks: dict[str, Task], tmp_path: Path
) -> None:
    calls = []

    def breaks(logits: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
        calls.append(places)
        factor = value if len(calls) == 3 else 1.0
        return tasks[loss].loss(logits, places) * factor

    order = question_order(len(ASKED), 12, 2, 0)
    with pytest.raises(UserError) as caught:
        trained(replace(tasks[loss], loss=breaks), tmp_path, order=order)
    assert str(caught.value) == (
        f"the loss is {value} at step 3 of 6, at a learning rate of 0.001; lower the learning rate"
    )
    assert len(calls) == 3
    assert len(column(tmp_path, "loss")) == 2


# DVCLive's files


def test_the_log_holds_loss_gradient_norm_and_rate_by_step_and_nothing_else(
    tasks: dict[str, Task], tmp_path: Path
) -> None:
    trained(tasks["finetune"], tmp_path / "log")
    names = ("loss", "grad_norm", "learning_rate")
    assert set(contents(tmp_path)) == {f"log/plots/metrics/{name}.tsv" for name in names}
    for name in names:
        lines = (tmp_path / "log" / "plots" / "metrics" / f"{name}.tsv").read_text().splitlines()
        assert lines[0].split("\t") == ["step", name]
        steps = math.ceil(len(ASKED) / 4)
        assert [int(line.split("\t")[0]) for line in lines[1:]] == list(range(1, steps + 1))


# The stages


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with parameters, questions, labels, a teacher's record and a pruned model."""
    write_params(tmp_path)
    write_questions(tmp_path / "questions.jsonl", ASKED)
    write_labels(tmp_path / "labels.jsonl", ASKED, ANSWERS)
    teacher = tiny_model(tiny_config("llama"), seed=1)
    state = Unfinished(tmp_path, math.inf)
    record(teacher, IDS, TREES, "answer", tmp_path / "record-of-teacher", state)
    (tmp_path / "record-of-teacher").rename(tmp_path / "record")
    save_model(teacher, tiny_tokenizer(), tmp_path / "teacher")
    save_model(student(), tiny_tokenizer(), tmp_path / "pruned")
    return tmp_path


OWN = {
    "finetune": ("--labels", "labels.jsonl"),
    "distill": ("--labels", "labels.jsonl", "--teacher-logits", "record", "--teacher", "teacher"),
}


def retrain(monkeypatch: Any, folder: Path, stage: str, out: str) -> str | int:
    return regrow(
        monkeypatch,
        folder,
        *(stage, "--pruned", "pruned", "--questions", "questions.jsonl", *OWN[stage]),
        *("--score", "l2", "--sparsity", 0.25),
        *("--train-size", 8, "--seed", 0, "--out", f"{out}/model", "--log", f"{out}/log"),
    )


@pytest.mark.parametrize("stage", ["finetune", "distill"])
def test_only_fine_tuning_depends_on_labels(
    stage: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert retrain(monkeypatch, workplace, stage, "one") == 0
    if stage == "finetune":
        others = [(answer + 1) % len(q.choices) for q, answer in zip(ASKED, ANSWERS, strict=True)]
        write_labels(workplace / "labels.jsonl", ASKED, others)
    else:
        (workplace / "labels.jsonl").unlink()
    assert retrain(monkeypatch, workplace, stage, "two") == 0
    one, two = contents(workplace / "one"), contents(workplace / "two")
    assert one.keys() == two.keys()
    weights = one["model/model.safetensors"] == two["model/model.safetensors"]
    assert weights == (one == two) == (stage == "distill")


def test_a_record_is_distilled_from_with_its_own_teacher(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = tiny_model(tiny_config("llama"), seed=1)
    (workplace / "teacher").rename(workplace / "kept")
    save_model(student(), tiny_tokenizer(), workplace / "teacher")
    assert "not made with this teacher" in str(retrain(monkeypatch, workplace, "distill", "other"))
    assert not (workplace / "other").exists()
    shutil.rmtree(workplace / "teacher")
    (workplace / "kept").rename(workplace / "teacher")
    assert retrain(monkeypatch, workplace, "distill", "one") == 0
    # The first batch's loss is the divergence from the teacher itself.
    order = question_order(len(IDS), 8, 1, 0)[
        : read_params(workplace / "params.yaml").training.batch_size
    ]
    batch = pack([TREES[place] for place in order])
    rows = flat_rows(batch, [TREES[place] for place in order], "answer")
    with torch.no_grad():
        said = row_logits(teacher, batch, rows).log_softmax(-1)
        found = row_logits(student(), batch, rows).log_softmax(-1)
    expected = F.kl_div(found, said, reduction="sum", log_target=True) / len(rows)
    first = column(workplace / "one" / "log", "loss")[0]
    assert float(first) == pytest.approx(float(expected), rel=1e-4)


def test_on_the_gold_branch_alone_distillation_depends_on_labels(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(workplace, distill={"branches": "gold"})
    assert retrain(monkeypatch, workplace, "distill", "one") == 0
    others = [(answer + 1) % len(q.choices) for q, answer in zip(ASKED, ANSWERS, strict=True)]
    write_labels(workplace / "labels.jsonl", ASKED, others)
    assert retrain(monkeypatch, workplace, "distill", "two") == 0
    one, two = (contents(workplace / out)["model/model.safetensors"] for out in ("one", "two"))
    assert one != two


@pytest.mark.parametrize("stage", ["finetune", "distill"])
def test_a_stage_whose_loss_is_no_number_leaves_no_model(
    stage: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = deepcopy(student())
    with torch.no_grad():
        broken.model.layers[0].mlp.down_proj.weight[0, 0] = math.nan
    save_model(broken, tiny_tokenizer(), workplace / "pruned")
    said = str(retrain(monkeypatch, workplace, stage, "out"))
    assert said.startswith(f"regrow {stage}: the loss is nan at step 1 of 2, at a learning rate of")
    assert "\n" not in said
    assert not (workplace / "out" / "model").exists()
    assert not any(path.name.endswith(".partial") for path in workplace.rglob("*"))


@pytest.mark.parametrize("stage", ["finetune", "distill"])
def test_training_leaves_no_temporary_files(
    stage: str, workplace: Path, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = set(workplace.iterdir())
    assert retrain(monkeypatch, workplace, stage, "out") == 0
    assert not any(temporary.iterdir())
    assert set(workplace.iterdir()) - before == {workplace / "out", workplace / STATES}
    assert not any((workplace / STATES).iterdir())
    assert {path.name for path in (workplace / "out").iterdir()} == {"model", "log"}


def test_order_and_random_importance_are_streams_of_their_own() -> None:
    unasked: Any = None
    for seed, number in itertools.product((0, 1), (0, 1)):
        scores = SCORES["random"](Neurons(500, number, seed, unasked, unasked)).numpy()
        order = question_order(500, 500, number + 1, seed)[-500:]
        plain = np.random.default_rng(seed).permutation(500)
        assert abs(np.corrcoef(scores, order)[0, 1]) < 0.2
        assert abs(np.corrcoef(np.argsort(scores), order)[0, 1]) < 0.2
        assert abs(np.corrcoef(plain, order)[0, 1]) < 0.2
