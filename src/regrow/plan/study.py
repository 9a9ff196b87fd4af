"""Every stage of a study in numbers: memory, disk, operations and time."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from regrow.model.trees import Positions, Tree
from regrow.plan import memory
from regrow.plan.loads import (
    Questions,
    inference_load,
    is_accumulated,
    training_flops,
    training_load,
)
from regrow.plan.shapes import BYTES, Shape, shape_of, trees_forward
from regrow.prune.removal import kept_count
from regrow.prune.steps import step_widths
from regrow.support.schema import Compute, Params, Training

GIBI = 2**30
PROCESS = int(0.55 * GIBI)
"""What a process with torch and transformers takes before it holds a model; measured."""
WITHOUT_MODEL = int(0.45 * GIBI)
"""The same where it is never to hold one; measured."""
CUDA = int(0.6 * GIBI)
"""What CUDA's context and libraries take of a GPU; stated, not measured."""
Pruned = Mapping[float, Sequence[Shape]]
"""By sparsity, the shapes that a model is pruned to step by step; the last is that of one step."""
RECORD_TOKENS = 1024
ACTIVATION_QUESTIONS = 128
SPEEDS = ("finetune", "distill", "teacher_logits", "evaluate")
"""Stages that have a speed of their own."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a machine is.

    Attributes:
        speed: operations a second and device of each of `SPEEDS`; `teacher` is as fast as the
            first, other forward passes as the last.
        start: seconds until a stage that runs a model has it.
        disk: bytes a second that a model is read, hashed and written with.
        source: whether these are stated or measured, and where.
    """

    speed: Mapping[str, float]
    start: float
    disk: float
    source: str


@dataclass(frozen=True)
class Row:
    """One or more runs of a stage that take the same.

    Attributes:
        stage: its name in dvc.yaml.
        what: which of its runs.
        runs: how many there are.
        device: peak bytes on a device, of one run; on a CPU, of a process.
        host: peak bytes of a process in the machine's own memory.
        disk: bytes of what one run leaves.
        state: bytes that an interruption would leave, while it runs.
        flops: operations of one run.
        seconds: time of one run, or None where it hangs on the network.
        peak: bytes on a device beside the process under another `compute`; None without a model.
    """

    stage: str
    what: str = ""
    runs: int = 1
    device: int = 0
    host: int = 0
    disk: int = 0
    state: int = 0
    flops: int = 0
    seconds: float | None = None
    peak: Callable[[Compute], int] | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """What is known of a study: its parameters, its model's configuration, its questions."""

    params: Params
    config: Any
    questions: Questions
    rates: Rates

    @property
    def compute(self) -> Compute:
        return self.params.compute

    def size(self, shape: Shape) -> int:
        """Bytes of a model on the disk."""
        return shape.parameters * BYTES[self.compute.dtype]

    def time(self, flops: int, as_stage: str, moved: int, parallel: bool = True) -> float:
        """Seconds: start, operations at a stage's speed, and bytes that are read or written."""
        devices = self.compute.processes if parallel else 1
        speed = self.rates.speed[as_stage] * devices
        return self.rates.start + flops / speed + moved / self.rates.disk


def device_bytes(compute: Compute, peak: int) -> int:
    """What a process with a peak of so many bytes takes of its device."""
    return peak + (PROCESS if compute.device == "cpu" else CUDA)


def rows(study: Study) -> list[Row]:
    """All stages of a study, in the order of dvc.yaml."""
    dense = shape_of(study.config)
    neurons, prune = study.config.intermediate_size, study.params.prune
    pruned = {}
    for sparsity in study.params.sweep.sparsity:
        kept = kept_count(neurons, sparsity, prune.multiple_of)
        widths = step_widths(neurons, kept, prune.steps, prune.multiple_of)
        pruned[sparsity] = [shape_of(study.config, width) for width in widths]
    return [
        *_before(study, dense),
        *_pruning(study, dense, pruned),
        *_retraining(study, pruned),
        *_evaluating(study, dense, pruned),
        _compare(study),
    ]


def _before(study: Study, dense: Shape) -> Iterator[Row]:
    params, size = study.params, study.size(dense)
    # The model is read as a whole, to be written as safetensors.
    yield Row("fetch", host=PROCESS + size, disk=size)
    yield Row("questions", host=PROCESS)
    teacher = params.teacher
    if teacher.finetune:
        trees = study.questions.take(teacher.train_size or params.data.train, gold=True)
        yield _training(study, Row("teacher"), [dense], trees, teacher.positions, teacher.training)
    else:
        yield Row("teacher", "a copy", disk=size, seconds=size / study.rates.disk)
    record = params.teacher_logits
    trees = study.questions.take(params.data.train)
    load = inference_load(trees, record.positions, RECORD_TOKENS)
    kept = sum(len(tree.rows(record.positions)) for tree in trees)
    row = dense.config.hidden_size * BYTES[study.compute.dtype]
    flops = trees_forward(dense.costs, trees, record.positions)
    seconds = study.time(flops, "teacher_logits", size + kept * row)
    peak = partial(memory.inference, dense, load)
    yield _run(study, Row("teacher_logits", disk=kept * row), peak, flops, seconds)


def _pruning(study: Study, dense: Shape, pruned: Pruned) -> Iterator[Row]:
    params = study.params
    trees = study.questions.take(params.data.train)
    load = inference_load(trees, "all")

    def forward(compute: Compute) -> int:
        whole = compute.model_copy(update={"shard": False})
        return memory.inference(dense, replace(load, read=1), whole)

    flops = trees_forward(dense.costs, trees, "answer")
    # One matrix of an MLP at a time, of which the score makes a copy of eight bytes a weight.
    matrix = dense.config.hidden_size * dense.config.intermediate_size
    tensors = (BYTES[study.compute.dtype] + 8) * matrix
    for score, (sparsity, shapes) in itertools.product(params.sweep.score, pruned.items()):
        # With more steps than one, the model of the first lies beside that of all of them.
        size = sum(study.size(shape) for shape in (shapes[-1], *shapes[:-1][:1]))
        row = Row("prune", f"{score}, {_width(sparsity, shapes)}", disk=size)
        moved = study.size(dense) + size
        if score == "activation":
            yield _run(study, row, forward, flops, study.time(flops, "evaluate", moved))
        else:
            seconds = study.time(0, "evaluate", moved)
            yield replace(row, host=WITHOUT_MODEL + tensors, seconds=seconds)
    passes = 2 if "activation" in params.sweep.score else 1
    work = flops * (ACTIVATION_QUESTIONS + (passes - 1) * len(trees)) // len(trees)
    seconds = study.time(work, "evaluate", study.size(dense), parallel=False)
    yield _run(study, Row("importance"), forward, work, seconds)


def _retraining(study: Study, pruned: Pruned) -> Iterator[Row]:
    params = study.params
    runs = len(params.sweep.score) * len(params.sweep.seed)
    gold = params.distill.branches == "gold"
    losses = (
        ("finetune", True, params.finetune.positions),
        ("distill", gold, params.teacher_logits.positions),
    )
    grid = itertools.product(losses, pruned.items(), params.sweep.train_size)
    for (stage, one, positions), (sparsity, shapes), size in grid:
        row = Row(stage, f"{_width(sparsity, shapes)}, {size:,} questions", runs)
        trees = study.questions.take(size, one)
        yield _training(study, row, shapes, trees, positions, params.training)


def _training(
    study: Study,
    row: Row,
    shapes: Sequence[Shape],
    trees: Sequence[Tree],
    positions: Positions,
    settings: Training,
) -> Row:
    def peak(compute: Compute) -> int:
        load = training_load(trees, positions, settings, compute)
        return memory.training(shapes[0], load, compute, is_accumulated(settings, compute))

    # Where it is pruned gradually, the steps of training are shared out among the shapes.
    each = [training_flops(s.costs, trees, positions, settings, study.compute) for s in shapes]
    # In between, scores of activations run the model over all train questions.
    scores, asked = study.params.sweep.score, study.questions.take(study.params.data.train)
    walks = sum(trees_forward(s.costs, asked, "answer") for s in shapes[:-1])
    flops = sum(each) // len(shapes) + walks * scores.count("activation") // len(scores)
    size, widest = study.size(shapes[-1]), study.size(shapes[0])
    seconds = study.time(flops, "distill" if row.stage == "distill" else "finetune", 2 * size)
    row = _run(study, replace(row, disk=size), peak, flops, seconds)
    state = 3 * widest  # the weights and AdamW's two moments
    saving = state // study.compute.processes if study.compute.device != "cpu" else 0
    # What is saved lies beside what was saved before it, and a step's model as it was trained
    # beside the one that is pruned on.
    models = 2 * widest if len(shapes) > 1 else 0
    return replace(row, host=row.host + saving, state=2 * state + models)


def _evaluating(study: Study, dense: Shape, pruned: Pruned) -> Iterator[Row]:
    sweep = study.params.sweep
    scores, students = len(sweep.score), len(sweep.train_size) * len(sweep.seed)
    yield _evaluation(study, Row("evaluate_teacher"), dense)
    for stage, runs in (("evaluate_pruned", scores), ("evaluate", 2 * scores * students)):
        for sparsity, shapes in pruned.items():
            yield _evaluation(study, Row(stage, _width(sparsity, shapes), runs), shapes[-1])


def _evaluation(study: Study, row: Row, shape: Shape) -> Row:
    data = study.params.data
    others = sum(wanted.questions for wanted in study.params.evaluate.transfer.values())
    trees = study.questions.take(data.calibration + data.test + data.held_out + others)
    load = inference_load(trees, "answer")
    peak = partial(memory.inference, shape, load)
    flops = trees_forward(shape.costs, trees, "answer")
    return _run(study, row, peak, flops, study.time(flops, "evaluate", study.size(shape)))


def _run(study: Study, row: Row, peak: Callable[[Compute], int], flops: int, seconds: float) -> Row:
    """A run of a model, whose memory is asked for now."""
    device = device_bytes(study.compute, peak(study.compute))
    host = device if study.compute.device == "cpu" else PROCESS
    return replace(row, device=device, host=host, flops=flops, seconds=seconds, peak=peak)


COMPARE = 1.2e-6
"""Seconds of `compare` for each resample and cell of the sweep with its models; measured."""


def _compare(study: Study) -> Row:
    params = study.params
    sweep = params.sweep
    cells = len(sweep.score) * len(sweep.sparsity) * len(sweep.train_size)
    seconds = study.rates.start + COMPARE * cells * params.compare.resamples * params.data.test
    return Row("compare", host=PROCESS, seconds=seconds)


def _width(sparsity: float, shapes: Sequence[Shape]) -> str:
    return f"{sparsity:g} ({shapes[-1].config.intermediate_size} neurons)"
