"""Products in bfloat16 beside those in float32: a training step of each loss, and scoring.

Both are of one study, machine and minute; what differs is `compute.mixed_precision`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import Bench, Files
from benchmarks.contest import Entry, NotMeasuredError, Outcome
from benchmarks.evaluate import agreement, best
from benchmarks.results import Measure, Note, Row, Target

GROUP = "precision"
FASTER = Target.least(1.5, ">= 1.5x")
STEPS = {"ce": "cross-entropy", "kl": "KL from the record"}
MOST_STEPS = 4
PRECISIONS = {"float32": None, "bfloat16": "bfloat16"}


def rows(bench: Bench) -> Iterator[Row]:
    """Seconds in float32 over seconds in bfloat16, and what either answers."""
    size = bench.params.training.batch_size
    files = bench.take("train", min(bench.questions, MOST_STEPS * size))
    settings = bench.settings(
        student=bench.pruned(bench.params.sweep.sparsity[0]),
        teacher=bench.teacher,
        questions=files.questions,
        labels=files.labels,
    )
    for kind, name in STEPS.items():
        found = _contest(bench, "benchmarks.training:ours", settings | {"kind": kind})
        yield _row(f"training step, {name}", "s/step", "step_seconds", found, {})
    files = bench.take("test", bench.questions)
    settings = bench.settings(
        model=bench.teacher,
        questions=files.questions,
        labels=files.labels,
        format=bench.params.prompt.format,
    )
    found = _contest(bench, "benchmarks.evaluate:ours", settings)
    yield _row("evaluate", "s", "scoring_seconds", found, _answers(files, found))


def _contest(bench: Bench, target: str, settings: dict[str, Any]) -> dict[str, Outcome]:
    entries = {}
    for name, precision in PRECISIONS.items():
        scratch = bench.scratch / f"{settings.get('kind', 'evaluate')}-{name}"
        scratch.mkdir()
        params = settings["params"]
        compute = params["compute"] | {"mixed_precision": precision}
        own = {"params": params | {"compute": compute}, "scratch": str(scratch)}
        entries[name] = Entry(target, settings | own)
    return bench.contest(entries)


def _row(name: str, unit: str, key: str, found: dict[str, Outcome], notes: dict[str, Note]) -> Row:
    try:
        slow, fast = (
            Measure(what=what, unit=unit, values=found[what].series(key)) for what in PRECISIONS
        )
    except NotMeasuredError as fault:
        return Row(group=GROUP, name=name, target=FASTER, not_measured=str(fault))
    return Row(
        group=GROUP,
        name=f"{name}: bfloat16 products",
        ours=fast,
        against=slow,
        ratio="against / ours",
        target=FASTER,
        notes=notes,
    )


def _answers(files: Files, found: dict[str, Outcome]) -> dict[str, Note]:
    """How many questions either answers rightly, per character, and how far they are apart."""
    from regrow.tasks.questions import read_labels, read_questions

    answers = read_labels(Path(files.labels), read_questions(Path(files.questions)))
    notes: dict[str, Note] = {"questions": files.count}
    runs = {name: outcome.runs[-1] for name, outcome in found.items() if outcome.runs}
    for name, run in runs.items():
        notes[f"right_in_{name}"] = sum(
            best([score / size for score, size in zip(scores, sizes, strict=True)]) == answer
            for scores, sizes, answer in zip(
                run["log_probs"], run["characters"], answers, strict=True
            )
        )
    if len(runs) == len(PRECISIONS):
        notes |= agreement(*runs.values())
    return notes
