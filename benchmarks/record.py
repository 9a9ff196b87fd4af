"""The teacher's record: how small it is, and what its buckets change about loss and student."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import stages
from benchmarks.common import Bench
from benchmarks.contest import NotMeasuredError
from benchmarks.results import Measure, Row, Target
from benchmarks.worker import Prepared

GROUP = "record"
COMPARED = 32  # questions whose whole distributions are recorded too, 5 MB each
FLOAT = 4  # bytes


def rows(bench: Bench) -> Iterator[Row]:
    """Bytes a question, how far loss, gradient and student are from those of whole logits."""
    yield from loss(bench)
    yield effect(bench)


def loss(bench: Bench) -> Iterator[Row]:
    """The record's size, and the error of the loss that is read from it."""
    sizes = sorted(bench.params.sweep.sparsity)
    students = {
        f"pruned {sparsity}": str(bench.pruned(sparsity)) for sparsity in {sizes[0], sizes[-1]}
    }
    named = f"{bench.score}-{sizes[0]}-*"
    for path in sorted((bench.root / "models" / "distill").glob(named))[:1]:
        students[f"distilled {sizes[0]}"] = str(path)
    files = bench.take("train", min(bench.questions, COMPARED))
    settings = bench.settings(teacher=bench.teacher, students=students, questions=files.questions)
    records = {"kept": "teacher record", "whole": "whole teacher record, top_k: null"}
    try:
        found = bench.once("benchmarks.record:compare", settings)
    except NotMeasuredError as fault:
        for name in records.values():
            yield Row(group=GROUP, name=name, not_measured=str(fault))
        return
    for kind, name in records.items():
        made = found[kind]
        students = made["students"]
        worst = max(students, key=lambda student: students[student]["error"])
        shared = {"questions": files.count, **({"top k": found["top_k"]} if kind == "kept" else {})}
        yield Row(
            group=GROUP,
            name=f"{name}: bytes a question",
            ours=Measure(what="regrow", unit="bytes/question", values=[made["bytes"]]),
            against=Measure(
                what="whole fp32 logits", unit="bytes/question", values=[found["logits_bytes"]]
            ),
            ratio="against / ours",
            target=Target.least(50, ">= 50x smaller"),
            notes=shared,
        )
        yield Row(
            group=GROUP,
            name=f"{name}: error of the KL",
            ours=Measure(what=f"regrow, {worst}", unit="nats", values=[students[worst]["error"]]),
            target=Target.most(1e-3, "<= 1e-3 nats"),
            notes=shared
            | {
                f"{student}: {key}": value
                for student, values in students.items()
                for key, value in values.items()
            },
        )


def effect(bench: Bench) -> Row:
    """Two students of the same questions, one of whole distributions: which answers they differ in.

    The p-value is that of the exact paired test; the target is that of a test which finds nothing.
    """
    from regrow.compare.bootstrap import mean_interval, resample
    from regrow.compare.significance import paired_test
    from regrow.evaluate.accuracy import right
    from regrow.evaluate.predictions import read_predictions

    sparsity = min(bench.params.sweep.sparsity)
    train, test = bench.take("train", 3 * bench.questions), bench.take("test", 2 * bench.questions)
    settings = bench.params.compare
    answers = []
    name = "teacher record: students of whole logits and of this record"
    for kind, changes in (("whole", {"teacher_logits": {"top_k": None}}), ("kept", {})):
        record, folder = bench.scratch / f"record-{kind}", bench.scratch / f"evaluated-{kind}"
        try:
            bench.stage(
                *stages.teacher_logits(bench.teacher, train.questions, record), changes=changes
            )
            bench.stage(*stages.distill(bench, sparsity, record, train.questions, train.count))
            bench.stage(*stages.evaluate(bench.scratch / "distilled", test, folder))
        except NotMeasuredError as fault:
            return Row(group=GROUP, name=name, not_measured=str(fault))
        found = read_predictions(folder / "predictions.parquet").of_split("test")
        answers.append(right(found, settings.accuracy)[None])
    tested = paired_test(answers[0], answers[1])
    draws = resample(answers[0].shape[1], 1, settings.resamples, settings.seed)
    difference = mean_interval(answers[0] - answers[1], draws, settings.confidence, bounds=(-1, 1))
    ends = (difference.low, difference.high)
    return Row(
        group=GROUP,
        name=name,
        ours=Measure(what="regrow", unit="p", values=[1.0 if math.isnan(tested.p) else tested.p]),
        target=Target.least(0.05, "no difference found: p >= 0.05"),
        notes={
            "train questions": train.count,
            "test questions": answers[0].shape[1],
            "student sparsity": sparsity,
            "accuracy of whole": 100 * float(answers[0].mean()),
            "accuracy of this record": 100 * float(answers[1].mean()),
            "whole - this, points": 100 * difference.estimate,
            "interval": [100 * end for end in ends if end is not None],
            "only whole right": tested.only_right,
            "only this right": tested.only_other,
        },
    )


def compare(settings: dict[str, Any]) -> Prepared:
    """Make both records and compare what they give with what the teacher says."""
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
    logits = params.teacher_logits
    teacher = load_model(Path(settings["teacher"]), *load)
    asked = read_questions(Path(settings["questions"]))
    trees = build_trees(load_tokenizer(Path(settings["teacher"])), asked, params.prompt.format)
    ids = [question.id for question in asked]
    folder = Path(settings["scratch"]) / "records"
    (folder / "state").mkdir(parents=True)
    for name, top_k in (("kept", logits.top_k), ("whole", None)):
        record(
            teacher, ids, trees, logits.positions, top_k, logits.temperatures, folder / name,
            Unfinished(folder / "state", math.inf),
        )  # fmt: skip
    whole = Record(folder / "whole", lambda: output_layer(teacher))
    kept = Record(folder / "kept", lambda: output_layer(teacher))
    records = {"kept": kept, "whole": whole}
    students = {
        name: _errors(teacher, load_model(Path(path), *load), ids, trees, records, params)
        for name, path in settings["students"].items()
    }
    layout = whole.layout
    facts: dict[str, Any] = {
        "top_k": logits.top_k,
        "logits_bytes": layout.rows * layout.vocabulary * FLOAT / len(ids),
    }
    for kind in records:
        facts[kind] = {
            "bytes": _bytes(folder / kind) / len(ids),
            "students": {name: errors[kind] for name, errors in students.items()},
        }
    return facts, dict


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _errors(
    teacher: Any,
    student: Any,
    ids: Sequence[str],
    trees: Sequence[Any],
    records: Mapping[str, Any],
    params: Any,
) -> dict[str, dict[str, float]]:
    """For each record, the KL a position from the teacher itself, and what the record errs by.

    The error is the mean over positions of how far the record's KL lies from it; `largest` is that
    of the worst question.
    """
    import torch

    from regrow.distill.divergence import forward_kl
    from regrow.distill.reader import Targets
    from regrow.model.forward import row_logits
    from regrow.model.trees import flat_rows, pack

    temperature, positions = params.distill.temperature, params.teacher_logits.positions
    full = square = 0.0
    count = 0
    gap, furthest, square_error = (dict.fromkeys(records, 0.0) for _ in range(3))
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

        exact, slope = loss_and_gradient(Targets(said, None, None, temperature))
        full += exact
        square += float(slope.square().sum())
        count += len(picked)
        for kind, record in records.items():
            found, its_slope = loss_and_gradient(record.targets(record.rows(identity), temperature))
            gap[kind] += abs(exact - found)
            furthest[kind] = max(furthest[kind], abs(exact - found) / len(picked))
            square_error[kind] += float((slope - its_slope).square().sum())
    return {
        kind: {
            "kl": full / count,
            "error": gap[kind] / count,
            "largest_error_of_a_question": furthest[kind],
            "relative_error_of_the_gradient": (square_error[kind] / square) ** 0.5,
        }
        for kind in records
    }
