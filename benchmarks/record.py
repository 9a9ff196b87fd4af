"""The teacher's record: how small it is, and how exact is the loss that is read from it."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import Bench
from benchmarks.contest import NotMeasuredError
from benchmarks.results import Measure, Row, Target
from benchmarks.worker import Prepared

GROUP = "record"
COMPARED = 32  # questions whose logits are compared
FLOAT = 4  # bytes


def rows(bench: Bench) -> Iterator[Row]:
    """Bytes a question, and the error of the loss that is read from the record."""
    sizes = sorted(bench.params.sweep.sparsity)
    students = {
        f"pruned {sparsity}": str(bench.pruned(sparsity)) for sparsity in {sizes[0], sizes[-1]}
    }
    named = f"{bench.score}-{sizes[0]}-*"
    for path in sorted((bench.root / "models" / "distill").glob(named))[:1]:
        students[f"distilled {sizes[0]}"] = str(path)
    files = bench.take("train", min(bench.questions, COMPARED))
    settings = bench.settings(teacher=bench.teacher, students=students, questions=files.questions)
    try:
        found = bench.once("benchmarks.record:compare", settings)
    except NotMeasuredError as fault:
        yield Row(group=GROUP, name="teacher record", not_measured=str(fault))
        return
    errors = found["students"]
    worst = max(errors, key=lambda student: errors[student]["error"])
    yield Row(
        group=GROUP,
        name="teacher record: bytes a question",
        ours=Measure(what="regrow", unit="bytes/question", values=[found["bytes"]]),
        against=Measure(
            what="whole fp32 logits", unit="bytes/question", values=[found["logits_bytes"]]
        ),
        ratio="against / ours",
        target=Target.least(50, ">= 50x smaller"),
        notes={"questions": files.count},
    )
    yield Row(
        group=GROUP,
        name="teacher record: error of the KL",
        ours=Measure(what=f"regrow, {worst}", unit="nats", values=[errors[worst]["error"]]),
        target=Target.most(1e-3, "<= 1e-3 nats"),
        notes={"questions": files.count}
        | {
            f"{student}: {key}": value
            for student, values in errors.items()
            for key, value in values.items()
        },
    )


def compare(settings: dict[str, Any]) -> Prepared:
    """Make a record and compare what it gives with what the teacher says."""
    from regrow.distill.reader import Record
    from regrow.distill.writer import record
    from regrow.model.folders import load_model, load_tokenizer
    from regrow.model.forward import output_layer
    from regrow.model.runtime import fix_runtime
    from regrow.model.trees import build_trees
    from regrow.support.resume import Unfinished
    from regrow.support.schema import Params
    from regrow.tasks.questions import read_questions

    params = Params.model_validate(settings["params"])
    fix_runtime(params.compute, 0)
    load = (params.compute.dtype, params.compute.device)
    teacher = load_model(Path(settings["teacher"]), *load)
    asked = read_questions(Path(settings["questions"]))
    trees = build_trees(load_tokenizer(Path(settings["teacher"])), asked, params.prompt.format)
    ids = [question.id for question in asked]
    folder = Path(settings["scratch"]) / "records"
    (folder / "state").mkdir(parents=True)
    state = Unfinished(folder / "state", math.inf)
    record(teacher, ids, trees, params.teacher_logits.positions, folder / "record", state)
    opened = Record(folder / "record", lambda: output_layer(teacher))
    facts: dict[str, Any] = {
        "bytes": sum(path.stat().st_size for path in (folder / "record").iterdir()) / len(ids),
        "logits_bytes": opened.layout.rows * opened.layout.vocabulary * FLOAT / len(ids),
        "students": {
            name: _errors(teacher, load_model(Path(path), *load), ids, trees, opened, params)
            for name, path in settings["students"].items()
        },
    }
    return facts, dict


def _errors(
    teacher: Any, student: Any, ids: Sequence[str], trees: Sequence[Any], record: Any, params: Any
) -> dict[str, float]:
    """The KL a position from the teacher itself, and what the record errs by.

    The error is the mean over positions of how far the record's KL lies from it; `largest` is that
    of the worst question.
    """
    import torch

    from regrow.distill.divergence import forward_kl
    from regrow.distill.reader import Targets
    from regrow.model.forward import row_logits
    from regrow.model.trees import flat_rows, pack

    temperature, positions = params.distill.temperature, params.teacher_logits.positions
    full = square = gap = furthest = square_error = 0.0
    count = 0
    for identity, tree in zip(ids, trees, strict=True):
        batch = pack([tree])
        picked = flat_rows(batch, [tree], positions)
        with torch.no_grad():
            logits = row_logits(student, batch, picked).float()
            said = (row_logits(teacher, batch, picked).float() / temperature).log_softmax(-1)

        def loss_and_gradient(targets: Any, at: Any = logits) -> tuple[float, Any]:
            free = at.clone().requires_grad_()
            loss = forward_kl(free, targets)
            return float(loss.detach()), torch.autograd.grad(loss, free)[0]

        exact, slope = loss_and_gradient(Targets(said, temperature))
        found, its_slope = loss_and_gradient(record.targets(record.rows(identity), temperature))
        full += exact
        square += float(slope.square().sum())
        count += len(picked)
        gap += abs(exact - found)
        furthest = max(furthest, abs(exact - found) / len(picked))
        square_error += float((slope - its_slope).square().sum())
    return {
        "kl": full / count,
        "error": gap / count,
        "largest_error_of_a_question": furthest,
        "relative_error_of_the_gradient": (square_error / square) ** 0.5,
    }
