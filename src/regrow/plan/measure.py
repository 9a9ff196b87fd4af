"""How fast this machine runs a study: a few steps and batches of the real thing, timed."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from regrow.distill.divergence import distillation_task
from regrow.distill.reader import Record
from regrow.distill.writer import record
from regrow.model.forward import output_layer
from regrow.model.runtime import fix_runtime
from regrow.model.scoring import score_choices
from regrow.plan.loads import training_flops
from regrow.plan.shapes import Shape, shape_of, trees_forward
from regrow.plan.study import Rates, Study
from regrow.prune.removal import kept_count
from regrow.retrain.cross_entropy import finetuning_task
from regrow.retrain.trainer import Task, train
from regrow.support.files import file_hash
from regrow.support.resume import unfinished

STEPS = 3  # timed, after one that makes AdamW's states
SCORED, RECORDED = 80, 24  # questions
FILE = 2**26  # bytes
IMPORTS = "import regrow.stages.distill, regrow.stages.evaluate"


def measured(study: Study) -> Rates:
    """Rates of this machine, on a random model of the study's shapes.

    The model is as narrow as the middle one of the sweep, for most runs are of pruned models.
    """
    params, compute = study.params, study.compute
    fix_runtime(compute, 0)
    sparsity = sorted(params.sweep.sparsity)[len(params.sweep.sparsity) // 2]
    width = kept_count(study.config.intermediate_size, sparsity, params.prune.multiple_of)
    shape = shape_of(study.config, width)
    build: Any = AutoModelForCausalLM.from_config
    model = build(shape.config, dtype=getattr(torch, compute.dtype)).to(compute.device).eval()
    scored = study.questions.take(SCORED)
    score_choices(model, scored)  # what runs for the first time takes longer
    flops = trees_forward(shape.costs, scored, "answer")
    speed = {"evaluate": flops / _seconds(lambda: score_choices(model, scored))}
    kept = params.teacher_logits
    trees = study.questions.take(max((STEPS + 1) * params.training.batch_size, RECORDED))
    ids = [str(number) for number in range(len(trees))]
    with tempfile.TemporaryDirectory() as folder, chdir(folder):

        def write(out: Path, count: int) -> None:
            with unfinished(out, [], [], 1e9) as state:
                record(model, ids[:count], trees[:count], kept.positions, out, state)

        flops = trees_forward(shape.costs, trees[:RECORDED], kept.positions)
        speed["teacher_logits"] = flops / _seconds(lambda: write(Path("timed"), RECORDED))
        write(Path("record"), len(trees))
        opened = Record(Path("record"), lambda: output_layer(model))
        tasks = {
            "finetune": finetuning_task(trees, [0] * len(trees), params.finetune.positions),
            "distill": distillation_task(
                trees, ids, opened, params.distill.temperature, params.distill.divergence
            ),
        }
        for name, task in tasks.items():
            speed[name] = _training(study, shape, model, task)
        return Rates(speed, _start(), _disk(Path("file")), "measured on this machine")


def _training(study: Study, shape: Shape, model: Any, task: Task) -> float:
    """Operations a second of steps after the first."""
    settings = study.params.training.model_copy(update={"steps": None, "epochs": 1})
    size = settings.batch_size

    def run(steps: int) -> None:
        with unfinished(Path("out"), [], [], 1e9) as state:
            order = range(steps * size)
            train(model, task, order, 1e-9, settings, study.compute, 0, Path("log"), state)

    first = _seconds(lambda: run(1))
    passed = _seconds(lambda: run(STEPS + 1)) - first
    trees = task.trees[size : (STEPS + 1) * size]
    flops = training_flops(shape.costs, trees, task.positions, settings, study.compute)
    return flops / max(passed, 1e-3)


def _seconds(work: Callable[[], object]) -> float:
    with redirect_stdout(StringIO()):
        began = time.perf_counter()
        work()
        return time.perf_counter() - began


def _start() -> float:
    """Seconds until a stage has imported what it needs."""
    began = time.perf_counter()
    path = os.pathsep.join(sys.path)
    subprocess.run(
        [sys.executable, "-c", IMPORTS], check=True, env=os.environ | {"PYTHONPATH": path}
    )
    return time.perf_counter() - began


def _disk(path: Path) -> float:
    """Bytes a second that are written, and read to be hashed by DVC and for going on."""
    content = os.urandom(FILE)
    began = time.perf_counter()
    path.write_bytes(content)
    for kind in ("md5", "sha256"):
        file_hash(path, kind)
    return FILE / (time.perf_counter() - began)
