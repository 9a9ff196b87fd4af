"""What retraining costs elsewhere: accuracy and distance to the teacher on other tasks' sets."""

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np

from regrow.compare.bootstrap import Array, Interval, mean_interval, resample
from regrow.compare.curves import Row
from regrow.compare.evidence import as_json
from regrow.compare.study import METHODS, Study, student_run
from regrow.compare.uncertainty import kl_from
from regrow.evaluate.accuracy import chance, mean, right
from regrow.evaluate.predictions import TRANSFER, Predictions
from regrow.support.schema import Compare, Sweep

ALL = "all"  # the questions of every set together
FIRST_STREAM = 2  # of the draws; 0 and 1 are those of the test and the calibration questions
Cell = dict[str, dict[str, dict[str, float | None]]]


class OfSet(TypedDict):
    """One set: by cell `S-N`, measure and method, an interval's ends."""

    questions: int
    chance: float
    sweep: dict[str, Cell]


Transfer = dict[str, OfSet]


def transfer_json(study: Study, sweep: Sweep, settings: Compare) -> Transfer:
    """`metrics/evidence/transfer.json`: by set, cell `S-N` and measure, each method, distill -
    finetune, and distill - teacher and finetune - teacher, which say what was forgotten.

    `accuracy` is that of `compare.accuracy`; `kl` is from the teacher's distribution over the
    choices, in nats. The set `all` holds the questions of every set.
    """
    teacher = study["teacher"]
    splits = sorted({split for split in teacher.splits if split.startswith(TRANSFER)})
    groups = {split.removeprefix(TRANSFER): [split] for split in splits}
    if len(groups) > 1:
        groups[ALL] = splits
    found: Transfer = {}
    for stream, (name, members) in enumerate(groups.items(), start=FIRST_STREAM):
        parts = [teacher.of_split(split) for split in members]
        found[name] = {
            "questions": sum(len(part) for part in parts),
            "chance": mean(np.concatenate([chance(part) for part in parts])),
            "sweep": {
                f"{sparsity}-{train_size}": _cell(
                    study, members, sweep, settings, stream, sparsity, train_size
                )
                for train_size in sorted(sweep.train_size)
                for sparsity in sorted(sweep.sparsity)
            },
        }
    return found


def transfer_rows(transfer: Transfer) -> list[Row]:
    """The same as lines of a CSV file: a line a set, cell, measure and method or difference."""
    rows: list[Row] = []
    for name, of_set in transfer.items():
        for cell, measures in of_set["sweep"].items():
            sparsity, train_size = cell.rsplit("-", 1)
            rows += [
                {
                    "set": name,
                    "sparsity": float(sparsity),
                    "train_size": int(train_size),
                    "measure": measure,
                    "method": method,
                    **ends,
                    "questions": of_set["questions"],
                }
                for measure, methods in measures.items()
                for method, ends in methods.items()
            ]
    return rows


def _cell(
    study: Study,
    splits: Sequence[str],
    sweep: Sweep,
    settings: Compare,
    stream: int,
    sparsity: float,
    train_size: int,
) -> Cell:
    teacher = study["teacher"]
    runs = {
        "teacher": ["teacher"],
        "pruned": [f"pruned/{sparsity}"],
        "finetune": [student_run("finetuned", sparsity, train_size, seed) for seed in sweep.seed],
        "distill": [student_run("distilled", sparsity, train_size, seed) for seed in sweep.seed],
    }
    size = sum(len(teacher.of_split(split)) for split in splits)
    draws = resample(size, len(sweep.seed), settings.resamples, settings.seed, stream)

    def values(measure: Callable[[Predictions, Predictions], Array], method: str) -> Array:
        """[seeds, questions]."""
        return np.stack(
            [
                np.concatenate(
                    [measure(study[run].of_split(s), teacher.of_split(s)) for s in splits]
                )
                for run in runs[method]
            ]
        )

    def interval(found: Array, bounds: tuple[float, float] | None) -> dict[str, float | None]:
        ends: Interval = mean_interval(found, draws, settings.confidence, bounds)
        return as_json(ends) or {}

    measured: Cell = {}
    hits = {
        method: values(lambda run, _: right(run, settings.accuracy), method) for method in METHODS
    }
    measured["accuracy"] = {
        **{method: interval(hits[method], (0, 1)) for method in METHODS},
        "difference": interval(hits["distill"] - hits["finetune"], (-1, 1)),
        **{
            f"{method}_change": interval(hits[method] - hits["teacher"], (-1, 1))
            for method in ("finetune", "distill")
        },
    }
    distances = {
        method: values(lambda run, base: kl_from(base, run), method)
        for method in METHODS
        if method != "teacher"
    }
    measured["kl"] = {
        **{method: interval(found, None) for method, found in distances.items()},
        "difference": interval(distances["distill"] - distances["finetune"], None),
    }
    return measured
