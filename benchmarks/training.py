"""Training steps of both losses, beside the ceiling, each other and TRL's GKD trainer.

What is timed is this project's own `train`, from the moment one batch's loss is computed to the
moment the next one's is: backward pass, optimizer, logs, the next batch and its forward pass. The
first step, in which AdamW makes its state, is left out, on both sides.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import ceilings, stages
from benchmarks.common import GIBI, Bench
from benchmarks.contest import Entry, NotMeasuredError, Outcome
from benchmarks.results import Measure, Note, Row, Target
from benchmarks.worker import Prepared

GROUP = "training"
RATE = 1e-7  # small, so that every run trains the same model
STEP_SHARE = Target.least(0.6, ">= 60 %")
AGAINST_TRL = Target.least(8.0, ">= 8x")
MOST_STEPS = 8
BYTES = 16  # a parameter's weight, gradient and two moments of AdamW


def rows(bench: Bench) -> Iterator[Row]:
    """Steps, their shares of the ceiling, and examples a second beside TRL's."""
    batch = bench.params.training.batch_size
    count = min(bench.questions, MOST_STEPS * batch)
    count -= count % batch if count > batch else 0  # all steps are of one size
    files = bench.take("train", count)
    student = bench.params.sweep.sparsity[0]
    settings = bench.settings(
        student=bench.pruned(student),
        teacher=bench.teacher,
        questions=files.questions,
        labels=files.labels,
    )
    entries = {
        kind: Entry("benchmarks.training:ours", {**settings, "kind": kind})
        for kind in ("ce", "kl", "kl_of_ce_tokens")
    }
    outcomes = bench.contest(
        entries
        | {
            "theirs": Entry("benchmarks.gkd:theirs", settings),
            "ceiling": ceilings.entry(bench),
        }
    )
    shared: dict[str, Note] = {"questions": files.count, "student_sparsity": student}
    for kind, name in (("ce", "cross-entropy"), ("kl", "KL from the record")):
        yield Row(
            group=GROUP,
            name=f"training step, {name}: useful operations",
            ours=Measure(what="regrow", unit="GFLOP/s", values=outcomes[kind].series("gflops")),
            against=ceilings.ceiling(outcomes["ceiling"]),
            ratio="ours / against",
            percent=True,
            target=STEP_SHARE,
            notes=shared,
        )
    yield Row(
        group=GROUP,
        name="KL step from the record / CE step, equal tokens",
        ours=_seconds("KL step", outcomes["kl_of_ce_tokens"]),
        against=_seconds("CE step", outcomes["ce"]),
        ratio="ours / against",
        target=Target.most(1.15, "<= 1.15x"),
        notes=shared,
    )
    yield from _against_trl(outcomes, shared)
    yield epoch(bench, student)


def _seconds(what: str, outcome: Outcome) -> Measure:
    return Measure(what=what, unit="s/step", values=outcome.series("step_seconds"))


def _against_trl(outcomes: dict[str, Outcome], shared: dict[str, Note]) -> Iterator[Row]:
    """Examples a second, an example being a question with one of its choices."""
    top = ceilings.ceiling(outcomes["ceiling"]).median
    useful = outcomes["kl"].facts["gigaflop_an_example"]
    names = {
        "examples": "distill, its record given",
        "examples_and_record": "distill, and the making of its record",
    }
    for key, name in names.items():
        mine = _examples("regrow", outcomes["kl"], key, useful / top)
        facts = outcomes["theirs"].facts
        target = AGAINST_TRL if key == "examples" else None
        try:
            batch = f"batch {facts.get('batch_size')} x {facts.get('accumulated')}"
            yours = _examples(f"TRL GKD, {batch}", outcomes["theirs"], "examples", useful / top)
        except NotMeasuredError as fault:
            yield Row(group=GROUP, name=name, ours=mine, target=target, not_measured=str(fault))
            continue
        loss: dict[str, Note] = {
            "batch_sizes_tried": facts["batch_sizes"],
            "seconds_at_batch_sizes": facts["seconds"],
            "loss_of_trl": facts["loss"],
            "loss_of_regrow_on_the_same_texts": facts["loss_of_regrow"],
        }
        yield Row(
            group=GROUP,
            name=name,
            ours=mine,
            against=yours,
            ratio="ours / against",
            target=target,
            notes=shared | loss,
        )


def _examples(what: str, outcome: Outcome, key: str, seconds_an_example: float) -> Measure:
    measure = Measure(what=what, unit="examples/s", values=outcome.series(key))
    return measure.model_copy(update={"of_ceiling": measure.median * seconds_an_example})


def epoch(bench: Bench, sparsity: float) -> Row:
    """The peak memory of the stage `distill` over one epoch of the train questions."""
    name = "one epoch of distill: peak memory"
    files = bench.take("train", 3 * bench.questions)
    settings = bench.settings(model=bench.pruned(sparsity))
    try:
        parameters = bench.once("benchmarks.training:size", settings)["parameters"]
        record = bench.scratch / "record-epoch"
        bench.stage(*stages.teacher_logits(bench.teacher, files.questions, record))
        run = bench.stage(*stages.distill(bench, sparsity, record, files.questions, files.count))
    except NotMeasuredError as fault:
        return Row(group=GROUP, name=name, not_measured=str(fault))
    return Row(
        group=GROUP,
        name=name,
        ours=Measure(what="regrow", unit="GiB", values=[run.peak_bytes / GIBI]),
        against=Measure(
            what=f"{BYTES} bytes a parameter", unit="GiB", values=[BYTES * parameters / GIBI]
        ),
        ratio="ours / against",
        target=Target.most(1.35, "<= 1.35x"),
        notes={"questions": files.count, "parameters": parameters, "seconds": run.seconds},
    )


def size(settings: dict[str, Any]) -> Prepared:
    """The parameters of a model."""
    from regrow.model.folders import count_parameters, load_model

    model = load_model(Path(settings["model"]), "float32", "cpu")
    return {"parameters": count_parameters(model)}, dict


# Contestants


def ours(settings: dict[str, Any]) -> Prepared:
    """This project's trainer, on cross-entropy, on KL, or on KL over the tokens that CE reads."""
    from regrow.model.folders import load_model
    from regrow.model.runtime import fix_runtime
    from regrow.plan.shapes import costs, trees_forward
    from regrow.retrain.order import question_order
    from regrow.retrain.trainer import train
    from regrow.support.resume import Unfinished
    from regrow.support.schema import Params

    params = Params.model_validate(settings["params"])
    fix_runtime(params.compute, 0)
    model = load_model(Path(settings["student"]), params.compute.dtype, params.compute.device)
    folder = Path(settings["scratch"]) / f"training-{settings['kind']}"
    folder.mkdir()
    make_task = _task_maker(settings, params, folder)
    task, branches = make_task()
    model_costs = costs(model)
    order = question_order(len(task.trees), len(task.trees), 1, 0)
    size = params.training.batch_size
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    work = [
        trees_forward(model_costs, [task.trees[place] for place in batch], task.positions)
        for batch in batches
    ]
    examples = [sum(branches[place] for place in batch) for batch in batches]
    firsts = {batch[0] for batch in batches}
    runs = itertools.count()

    def run() -> dict[str, Any]:
        marks: list[float] = []

        def loss(logits: Any, places: Sequence[int]) -> Any:
            if places[0] in firsts:  # the first part of a step's logits
                marks.append(time.perf_counter())
            return task.loss(logits, places)

        started = time.perf_counter()
        if settings["kind"] == "kl":
            make_task()  # its record is part of what is timed
        recorded = time.perf_counter()
        number = next(runs)
        state = Unfinished(folder / f"state-{number}", math.inf)
        state.folder.mkdir()
        log = folder / f"log-{number}"
        train(
            model,
            replace(task, loss=loss),
            order,
            RATE,
            params.training,
            params.compute,
            0,
            log,
            state,
        )
        first, last = counted(len(marks))
        passed = marks[last] - marks[first] if last > first else time.perf_counter() - recorded
        # A backward pass is two forward passes.
        operations = sum(2 * work[step] + work[step + 1] for step in range(first, last))
        done = sum(examples[first:last]) if last > first else sum(examples)
        record_seconds = (recorded - started) * done / sum(examples)
        return {
            "step_seconds": passed / max(last - first, 1),
            "gflops": (operations or 3 * sum(work)) / 1e9 / passed,
            "examples": done / passed,
            "examples_and_record": done / (passed + record_seconds),
        }

    useful = 3 * sum(work) / sum(examples) / 1e9
    return {"gigaflop_an_example": useful}, run


def _task_maker(
    settings: dict[str, Any], params: Any, folder: Path
) -> Callable[[], tuple[Any, list[int]]]:
    """A function that makes the task, record and all; with the choices of each question."""
    from regrow.distill.divergence import distillation_task
    from regrow.distill.reader import Record
    from regrow.distill.writer import record
    from regrow.model.folders import load_model, load_tokenizer
    from regrow.model.forward import output_layer
    from regrow.model.trees import build_trees, keep_branch
    from regrow.retrain.cross_entropy import finetuning_task
    from regrow.support.resume import Unfinished
    from regrow.tasks.questions import read_labels, read_questions

    asked = read_questions(Path(settings["questions"]))
    answers = read_labels(Path(settings["labels"]), asked)
    ids = [question.id for question in asked]
    tokenizer = load_tokenizer(Path(settings["student"]))
    trees = build_trees(tokenizer, asked, params.prompt.format)
    branches = [len(tree.branches) for tree in trees]
    if settings["kind"] == "ce":
        return lambda: (finetuning_task(trees, answers, params.finetune.positions), branches)

    teacher = load_model(Path(settings["teacher"]), params.compute.dtype, params.compute.device)
    positions, shapes = params.teacher_logits.positions, trees
    if settings["kind"] == "kl_of_ce_tokens":
        positions = params.finetune.positions
        shapes = [keep_branch(tree, answer) for tree, answer in zip(trees, answers, strict=True)]
    state = Unfinished(folder / "record-state", math.inf)
    state.folder.mkdir()
    out = folder / "record"

    def make() -> tuple[Any, list[int]]:
        record(teacher, ids, shapes, positions, out, state)
        opened = Record(out, lambda: output_layer(teacher))
        task = distillation_task(shapes, ids, opened, params.distill.temperature, "forward_kl")
        return task, branches

    return make


def counted(steps: int) -> tuple[int, int]:
    """From which mark to which time is counted: without the first step, if there are others."""
    return (1 if steps > 2 else 0), steps - 1
