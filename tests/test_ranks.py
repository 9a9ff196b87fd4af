"""Any number of ranks compute what one process does, on the engine that was asked for."""

import csv
import itertools
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import PARAMS, ROOT
from ranks_worker import ANSWERS, ORDER, run
from regrow.distill.writer import record
from regrow.model.folders import save_model
from regrow.model.forward import row_logits
from regrow.model.runtime import fix_runtime
from regrow.model.trees import build_trees, flat_rows, pack
from regrow.retrain import trainer
from regrow.retrain.cross_entropy import finetuning_task
from regrow.retrain.trainer import train
from regrow.support import environment as environment_of
from regrow.support import ranks
from regrow.support.errors import UserError
from regrow.support.resume import STATES, Unfinished
from regrow.support.schema import Compute
from regrow.tasks.questions import write_labels, write_questions
from tiny_models import (
    QUESTIONS,
    regrow,
    runtime_restored,
    tiny_config,
    tiny_model,
    tiny_tokenizer,
    write_params,
)

MODELS = {
    f"{architecture}-{'tied' if tied else 'untied'}": (architecture, tied)
    for architecture in ("llama", "olmo2")
    for tied in (True, False)
}
QUICK = [("llama-tied", "ce", True), ("olmo2-untied", "kl", True), ("llama-untied", "kl", False)]
# Of the embedding: 2, 3 and 4 ranks have to share it evenly where it is tied.
ROWS = len(tiny_tokenizer()) // 12 * 12 + 12
# Cases that processes run before new ones start: every sharded model has groups of its own, whose
# threads stay, and spin where another rank has let its model go.
AT_ONCE = 12
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def case(model: str, loss: str, shard: bool, again: int = 0, **compute: Any) -> dict[str, Any]:
    changed = "".join(f"-{key}-{value}" for key, value in compute.items())
    name = f"{model}-{loss}-{'shard' if shard else 'copy'}{changed}-{again}"
    return {"name": name, "model": model, "loss": loss, "compute": {"shard": shard, **compute}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and a teacher's record."""
    folder = tmp_path_factory.mktemp("ranks")
    for name, (architecture, tied) in MODELS.items():
        config = tiny_config(architecture, tie_word_embeddings=tied, vocab_size=ROWS)
        save_model(tiny_model(config), tiny_tokenizer(), folder / "models" / name)
    teacher = tiny_model(tiny_config("llama", vocab_size=ROWS), seed=1)
    save_model(teacher, tiny_tokenizer(), folder / "models" / "teacher")
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    ids = [question.id for question in QUESTIONS]
    state = Unfinished(folder / "state", math.inf)
    record(teacher, ids, trees, "all", folder / "record", state)
    return folder


def run_cases(place: Path, world: int, cases: list[dict[str, Any]]) -> Path:
    """Run cases on so many ranks, in processes that start once for many; where they wrote."""
    folder = place / f"on-{world}"
    folder.mkdir(exist_ok=True)
    for name in ("models", "record"):
        if not (folder / name).exists():
            (folder / name).symlink_to(place / name)
    if world == 1:
        with runtime_restored():
            for one in cases:
                run(one, folder)
        return folder / "out"
    command = [*LAUNCH, str(world), str(ROOT / "tests/ranks_worker.py"), str(folder)]
    for start in range(0, len(cases), AT_ONCE):
        some = json.dumps(cases[start : start + AT_ONCE])
        (folder / f"cases-{world}.json").write_text(some, encoding="utf-8")
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
    return folder / "out"


def logged(folder: Path, name: str) -> list[float]:
    with (folder / "log" / "plots" / "metrics" / f"{name}.tsv").open(encoding="utf-8") as lines:
        return [float(row[name]) for row in csv.DictReader(lines, delimiter="\t")]


def assert_as_one_process(one: Path, many: Path) -> None:
    for name in ("loss", "grad_norm"):
        assert logged(many, name) == pytest.approx(logged(one, name), rel=1e-5)
    weights, found = (load_file(f / "model" / "model.safetensors") for f in (one, many))
    assert weights.keys() == found.keys()
    difference = math.sqrt(sum(float((found[k] - w).norm()) ** 2 for k, w in weights.items()))
    size = math.sqrt(sum(float(w.norm()) ** 2 for w in weights.values()))
    assert difference < 1e-6 * size
    config = "model/config.json"
    assert (one / config).read_bytes() == (many / config).read_bytes()


@pytest.mark.parametrize(
    ("world", "asked"),
    [
        (2, QUICK),
        *(
            pytest.param(
                world,
                list(itertools.product(MODELS, ("ce", "kl"), (True, False))),
                marks=pytest.mark.slow,
            )
            for world in (2, 3, 4)
        ),
    ],
)
def test_ranks_train_as_one_process_does_and_give_the_same_bytes_again(
    world: int, asked: list[tuple[str, str, bool]], place: Path
) -> None:
    # The last step has one question: an uneven one, and ranks with none.
    assert len(ORDER) % 5 == 1
    twice = [case(*one, again=again) for one in asked for again in (0, 1)]
    evaluated = [case(model, "evaluate", shard) for model, _, shard in asked]
    many = run_cases(place, world, [*twice, *evaluated])
    one = run_cases(place, 1, [case(model, loss, False) for model, loss, _ in asked])
    run_cases(place, 1, [case(model, "evaluate", False) for model, _, _ in asked])
    for model, loss, shard in asked:
        alone = one / case(model, loss, False)["name"]
        first, second = (many / case(model, loss, shard, again)["name"] for again in (0, 1))
        assert_as_one_process(alone, first)
        for path in (path for path in first.rglob("*") if path.is_file()):
            assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
        answers = "predictions.parquet"
        assert (many / case(model, "evaluate", shard)["name"] / answers).read_bytes() == (
            one / case(model, "evaluate", False)["name"] / answers
        ).read_bytes()


def test_micro_batches_and_checkpointing_change_no_step(place: Path) -> None:
    cases = [
        case("llama-tied", "ce", True, micro_batch=1),
        case("olmo2-untied", "ce", True, checkpointing=True),
        case("llama-tied", "ce", False, micro_batch=2),
        case("olmo2-untied", "ce", True),
    ]
    many = run_cases(place, 2, cases)
    alone = [case(name, "ce", False) for name in ("llama-tied", "olmo2-untied")]
    alone.append(case("olmo2-untied", "ce", False, checkpointing=True))
    one = run_cases(place, 1, alone)
    for made in cases:
        assert_as_one_process(one / f"{made['model']}-ce-copy-0", many / made["name"])
    weights = "model/model.safetensors"
    for folder, plain, computed_twice in (
        (one, alone[1], alone[2]),
        (many, cases[3], cases[1]),
    ):
        assert (folder / plain["name"] / weights).read_bytes() == (
            folder / computed_twice["name"] / weights
        ).read_bytes()


@pytest.mark.parametrize("model", ["llama-tied", "olmo2-untied"])
def test_the_gradient_does_not_hang_on_micro_batches(model: str) -> None:
    architecture, tied = MODELS[model]
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    task = finetuning_task([*trees, trees[0]], [*ANSWERS, 1], "all")
    found = []
    for size in (None, 1, 2, 4, 8):
        one = tiny_model(tiny_config(architecture, tie_word_embeddings=tied))
        trainer._backward(one, task, range(8), size)
        found.append(torch.cat([weight.grad.flatten() for weight in one.parameters()]))
    for gradient in found[1:]:
        assert float((gradient - found[0]).norm() / found[0].norm()) < 1e-6


@pytest.mark.parametrize("architecture", ["llama", "olmo2", "gemma2"])
def test_the_gradient_does_not_hang_on_how_many_logits_are_made_at_once(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    task = finetuning_task(trees, ANSWERS, "all")
    found = []
    for rows in (10**6, 1, 40):
        monkeypatch.setattr(trainer, "PART_ROWS", rows)
        one = tiny_model(tiny_config(architecture))
        loss = trainer._backward(one, task, range(7), None)
        gradient = torch.cat([weight.grad.flatten() for weight in one.parameters()])
        found.append((loss, gradient))
    # And as autograd has it, with all logits there.
    plain = tiny_model(tiny_config(architecture))
    batch = pack(task.trees)
    rows_read = flat_rows(batch, task.trees, "all")
    loss = task.loss(row_logits(plain, batch, rows_read), range(7)) / len(rows_read)
    loss.backward()
    found.append((loss.item(), torch.cat([w.grad.flatten() for w in plain.parameters()])))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        assert float((gradient - found[0][1]).norm() / found[0][1].norm()) < 1e-6


def test_a_tied_matrix_that_the_ranks_cannot_share_evenly_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tiny_config("llama", vocab_size=330))
    task = finetuning_task(build_trees(tiny_tokenizer(), QUESTIONS, "cloze"), ANSWERS, "all")
    compute = Compute(**PARAMS["compute"] | {"processes": 4, "shard": True})
    state = Unfinished(tmp_path / "state", math.inf)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="4 processes cannot share the 330 rows of this model's"):
        train(model, task, [0], 1e-3, ranks_settings(), compute, 0, tmp_path / "log", state)


# Numerics


def test_bfloat16_products_are_refused_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, 1, mixed_precision="bfloat16")
    monkeypatch.setattr(environment_of, "bfloat16_instructions", list)
    said = str(regrow(monkeypatch, tmp_path, *command(1)[9:]))
    assert said.startswith("regrow finetune: compute.mixed_precision is bfloat16, but cpu here")
    assert "\n" not in said


@pytest.mark.parametrize(("dtype", "least", "most"), [("float32", 0.99, 1), ("bfloat16", 0, 0.5)])
def test_a_step_at_the_papers_rate_moves_the_weights_in_float32_alone(
    dtype: str, least: float, most: float, tmp_path: Path
) -> None:
    """With products in bfloat16 too, for the weights are what has to hold a small change."""
    mixed = "bfloat16" if dtype == "float32" else None
    if mixed and not environment_of.has_bfloat16_products("cpu"):
        mixed = None
    compute = Compute(**PARAMS["compute"] | {"dtype": dtype, "mixed_precision": mixed})
    model = tiny_model(tiny_config("olmo2", initializer_range=0.02), getattr(torch, dtype))
    before = [weight.detach().clone() for weight in model.parameters()]
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    task = finetuning_task(trees, ANSWERS, "all")
    state = Unfinished(tmp_path / "state", math.inf)
    settings = ranks_settings(warmup=0.0)
    with runtime_restored():
        fix_runtime(compute, 0)
        train(model, task, [0, 1, 3, 4], 1e-5, settings, compute, 0, tmp_path / "log", state)
        fix_runtime(compute.model_copy(update={"mixed_precision": None}), 0)
    # Rows of tokens that no question holds have a gradient of the output matrix alone.
    pairs = list(zip(before, model.parameters(), strict=True))[1:]
    moved = sum(int((old != new).sum()) for old, new in pairs)
    share = moved / sum(old.numel() for old, _ in pairs)
    assert least <= share <= most


def ranks_settings(**changes: Any) -> Any:
    from ranks_worker import SETTINGS

    return SETTINGS.model_copy(update={"weight_decay": 0.0, **changes})


# Through the command


def prepare(folder: Path, world: int, **compute: Any) -> list[str]:
    """A folder to fine-tune in; the command."""
    training = {**PARAMS["training"], "batch_size": 2, "epochs": 12}
    launched = {"processes": world, "shard": True, **compute}
    write_params(folder, compute={**PARAMS["compute"], **launched}, training=training)
    for name, values in (("questions", QUESTIONS),):
        write_questions(folder / f"{name}.jsonl", values)
    write_labels(folder / "labels.jsonl", QUESTIONS, ANSWERS)
    model = tiny_model(tiny_config("llama", vocab_size=ROWS))
    save_model(model, tiny_tokenizer(), folder / "base")
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    text = re.sub(r"interval: [0-9.]+", "interval: 0.0", text)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return command(world)


def command(world: int) -> list[str]:
    return [
        *(*LAUNCH, str(world), "-m", "--", "regrow", "finetune", "--pruned", "base"),
        *("--questions", "questions.jsonl", "--labels", "labels.jsonl", "--score", "l2"),
        *("--sparsity", "0.25", "--train-size", "7", "--seed", "0"),
        *("--out", "out/model", "--log", "out/log"),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sentences(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith("regrow finetune:")]


def test_another_number_of_processes_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, 2)
    said = str(regrow(monkeypatch, tmp_path, *command(1)[9:]))
    assert said.startswith("regrow finetune: this stage runs in 1 process, but compute.processes")
    assert "\n" not in said and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, 30])
def test_killed_ranks_end_the_others_and_the_next_run_goes_on_to_the_same_bytes(
    kills: int, tmp_path: Path
) -> None:
    world = 2
    arguments = prepare(tmp_path, world)
    started = time.monotonic()
    done = subprocess.run(
        arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    duration = time.monotonic() - started
    expected = contents(tmp_path / "out")
    draw = random.Random(kills)
    killed = runs = went_on = 0
    while killed < kills:
        for name in ("out", STATES.name):
            subprocess.run(["rm", "-rf", str(tmp_path / name)], check=True)
        patience = 1.0
        while True:
            # Behind the last kill, to the end.
            seconds = draw.uniform(0.3, 1) * duration * patience if killed < kills else 3600
            whom = ("one", "all", "first")[killed % 3]
            ended, said = run_killed(arguments, tmp_path, whom, seconds)
            went_on += "goes on from its checkpoint" in said
            if ended:
                break
            killed += 1
            patience *= 1.1
            # Whoever is left says one sentence, once it has met the others (it has, where it went
            # on) and before it is done, which it is while the first writes the model; all at once
            # can say nothing.
            met = whom != "all" and "goes on from its checkpoint" in said
            met = met and "Writing model shards" not in said
            assert met <= len(sentences(said)) <= 1, said
            subprocess.run(["rm", "-rf", str(tmp_path / "out")], check=True)
        runs += 1
        assert contents(tmp_path / "out") == expected
    print(f"{killed} kills, {runs} runs to the end, {went_on} went on, all of the same bytes")


def run_killed(arguments: list[str], folder: Path, whom: str, seconds: float) -> tuple[bool, str]:
    """Kill ranks after so many seconds; whether the work was done before, and what was said."""
    with (folder / "printed").open("w+", encoding="utf-8") as printed:
        launcher = subprocess.Popen(
            arguments, cwd=folder, env=environment(), stdout=printed, stderr=printed
        )
        with suppress(subprocess.TimeoutExpired):
            launcher.wait(seconds)
        workers = children(launcher.pid)
        if whom != "all":
            workers = workers[:1] if whom == "first" else workers[1:2]
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        if not workers and launcher.poll() is None:  # it has not started them, or they are done
            launcher.wait(300)
        assert launcher.wait(60) is not None
        printed.seek(0)
        said = printed.read()
    if launcher.returncode != 0:
        assert workers, said
    return launcher.returncode == 0, said


def children(parent: int) -> list[int]:
    try:
        found = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8")
    except OSError:
        return []
    return [int(child) for child in found.split()]


@pytest.mark.slow
def test_what_two_ranks_saved_four_go_on_from(tmp_path: Path) -> None:
    arguments = prepare(tmp_path, 2)
    for attempt in range(20):
        ended, _ = run_killed(arguments, tmp_path, "all", 6 + 2 * attempt)
        if not ended and list(tmp_path.glob(f"{STATES}/*/*/progress.json")):
            break
    text = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("processes: 2", "processes: 4"), "utf-8")
    done = subprocess.run(
        command(4), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "goes on from its checkpoint-" in done.stdout


def test_a_device_is_taken_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.local_device("cuda:1") == "cuda:1"
    assert ranks.local_device("cuda") == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert ranks.local_device("cuda") == "cuda:3"
    assert ranks.local_device("cuda:1") == "cuda:1"
    assert ranks.local_device("cpu") == "cpu"


@pytest.mark.slow
def test_the_papers_study_is_rehearsed_from_the_source_to_the_table(
    new_study: Callable[[Path], Any], tmp_path: Path
) -> None:
    study = new_study(tmp_path)
    (study.root / "params.yaml").write_bytes(
        (ROOT / "studies" / "olmo2-rehearsal.yaml").read_bytes()
    )
    study.run(sys.executable, "-m", "regrow", "rehearsal", PYTHONPATH="src")
    # The launcher starts ranks by the name of its own Python, which here is the real one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{study.environment['PATH']}"
    study.dvc("repro", PATH=path)
    summary = json.loads((study.root / "metrics" / "summary.json").read_text(encoding="utf-8"))
    assert summary
    config = json.loads((study.root / "models/distill/l2-0.2-32-0/config.json").read_text("utf-8"))
    assert config["intermediate_size"] == 768 and config["dtype"] == "float32"
