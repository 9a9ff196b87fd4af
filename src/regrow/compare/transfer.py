"""What retraining costs elsewhere: accuracy and distance to the teacher on other tasks' sets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from regrow.compare.answers import Answers
from regrow.compare.bootstrap import Interval, mean_interval
from regrow.compare.curves import Row
from regrow.compare.study import LOSSES, METHODS, Cell, Study, cells_of
from regrow.evaluate.accuracy import chance, mean
from regrow.evaluate.predictions import TRANSFER
from regrow.support.files import as_json
from regrow.support.schema import Compare, Sweep

UNION = "all sets"  # no set can have this name, for names of sets hold no space
FIRST_STREAM = 2  # of the draws; 0 and 1 are those of the test and the calibration questions
Transfer = dict[str, dict[str, Any]]
"""By set: `questions`, `chance`, and by cell, measure and method the ends of an interval."""


def transfer_json(study: Study, sweep: Sweep, settings: Compare) -> Transfer:
    """`transfer.json`: by set, cell and measure, each method, distill - finetune, and what was
    forgotten, distill - teacher and finetune - teacher.

    `kl` is from the teacher's distribution over the choices, in nats; the set `UNION` is all sets.
    """
    teacher = study["teacher"]
    splits = sorted({split for split in teacher.splits if split.startswith(TRANSFER)})
    groups = {split.removeprefix(TRANSFER): [split] for split in splits}
    if len(groups) > 1:
        groups[UNION] = splits
    found: Transfer = {}
    for stream, (name, members) in enumerate(groups.items(), start=FIRST_STREAM):
        chances = chance(teacher.of_split(*members))
        answers = {
            run: Answers.of(predictions.of_split(*members), settings.accuracy)
            for run, predictions in study.items()
        }
        interval = partial(mean_interval, settings=settings, stream=stream)
        found[name] = {
            "questions": len(chances),
            "chance": mean(chances),
            "sweep": {
                str(cell): as_json(_cell(answers, cell, sweep.seed, interval))
                for cell in cells_of(sweep)
            },
        }
    return found


def transfer_rows(transfer: Transfer, sweep: Sweep) -> list[Row]:
    """The same as lines of a CSV file: a line a set, cell, measure and method or difference."""
    return [
        {"set": name, **asdict(cell), "measure": measure, "method": method}
        | {**ends, "questions": of_set["questions"]}
        for name, of_set in transfer.items()
        for cell in cells_of(sweep)
        for measure, methods in of_set["sweep"][str(cell)].items()
        for method, ends in methods.items()
    ]


def _cell(
    answers: Mapping[str, Answers],
    cell: Cell,
    seeds: Sequence[int],
    interval: Callable[..., Interval],
) -> dict[str, dict[str, Interval]]:
    runs = {method: [answers[run] for run in cell.runs(method, seeds)] for method in METHODS}
    hits = {method: np.stack([one.hits for one in each]) for method, each in runs.items()}
    distances = {
        method: np.stack([one.kl_from(answers["teacher"]) for one in runs[method]])
        for method in METHODS[1:]
    }
    changes = {f"{loss}_change": hits[loss] - hits["teacher"] for loss in LOSSES}
    gaps = {"difference": hits["distill"] - hits["finetune"], **changes}
    distances["difference"] = distances["distill"] - distances["finetune"]
    return {
        "accuracy": {
            **{name: interval(found, bounds=(0, 1)) for name, found in hits.items()},
            **{name: interval(found, bounds=(-1, 1)) for name, found in gaps.items()},
        },
        "kl": {name: interval(found) for name, found in distances.items()},
    }
