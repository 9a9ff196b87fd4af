"""What retraining costs elsewhere: accuracy and distance to the teacher on other tasks' sets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from regrow.compare.answers import Answers
from regrow.compare.bootstrap import Array, as_json, mean_interval, resample
from regrow.compare.curves import Row
from regrow.compare.study import LOSSES, METHODS, Cell, Study, cells_of
from regrow.evaluate.accuracy import chance, mean
from regrow.evaluate.predictions import TRANSFER
from regrow.support.schema import Compare, Sweep

UNION = "all sets"  # no set can have this name, for names of sets hold no space
FIRST_STREAM = 2  # of the draws; 0 and 1 are those of the test and the calibration questions
Ends = dict[str, float | None]
Transfer = dict[str, dict[str, Any]]
"""By set: `questions`, `chance`, and by cell, measure and method the ends of an interval."""


def transfer_json(study: Study, sweep: Sweep, settings: Compare) -> Transfer:
    """`transfer.json`: by set, cell and measure, each method, distill - finetune, and what was
    forgotten, distill - teacher and finetune - teacher.

    `accuracy` is that of `compare.accuracy`; `kl` is from the teacher's distribution over the
    choices, in nats. The set `UNION` holds the questions of every set.
    """
    teacher = study["teacher"]
    splits = sorted({split for split in teacher.splits if split.startswith(TRANSFER)})
    groups = {split.removeprefix(TRANSFER): [split] for split in splits}
    if len(groups) > 1:
        groups[UNION] = splits
    found: Transfer = {}
    for stream, (name, members) in enumerate(groups.items(), start=FIRST_STREAM):
        parts = [teacher.of_split(split) for split in members]
        found[name] = {
            "questions": sum(len(part) for part in parts),
            "chance": mean(np.concatenate([chance(part) for part in parts])),
            "sweep": {
                str(cell): _cell(study, members, cell, sweep.seed, settings, stream)
                for cell in cells_of(sweep)
            },
        }
    return found


def transfer_rows(transfer: Transfer, sweep: Sweep) -> list[Row]:
    """The same as lines of a CSV file: a line a set, cell, measure and method or difference."""
    return [
        {
            "set": name,
            "score": cell.score,
            "sparsity": cell.sparsity,
            "train_size": cell.train_size,
            "measure": measure,
            "method": method,
            **ends,
            "questions": of_set["questions"],
        }
        for name, of_set in transfer.items()
        for cell in cells_of(sweep)
        for measure, methods in of_set["sweep"][str(cell)].items()
        for method, ends in methods.items()
    ]


def _cell(
    study: Study,
    splits: Sequence[str],
    cell: Cell,
    seeds: Sequence[int],
    settings: Compare,
    stream: int,
) -> dict[str, dict[str, Ends]]:
    def answers(run: str) -> list[Answers]:
        return [Answers.of(study[run].of_split(split), settings.accuracy) for split in splits]

    teacher = answers("teacher")
    hits: dict[str, Array] = {}  # [seeds, questions]
    distances: dict[str, Array] = {}
    for method in METHODS:
        runs = [answers(run) for run in cell.runs(method, seeds)]
        hits[method] = np.stack([np.concatenate([part.hits for part in run]) for run in runs])
        distances[method] = np.stack(
            [
                np.concatenate(
                    [part.kl_from(base) for part, base in zip(run, teacher, strict=True)]
                )
                for run in runs
            ]
        )
    del distances["teacher"]
    draws = resample(
        hits["teacher"].shape[1], len(seeds), settings.resamples, settings.seed, stream
    )

    def interval(values: Array, bounds: tuple[float, float] | None = None) -> Ends:
        return as_json(mean_interval(values, draws, settings.confidence, bounds)) or {}

    return {
        "accuracy": {
            **{method: interval(found, (0, 1)) for method, found in hits.items()},
            "difference": interval(hits["distill"] - hits["finetune"], (-1, 1)),
            **{
                f"{loss}_change": interval(hits[loss] - hits["teacher"], (-1, 1)) for loss in LOSSES
            },
        },
        "kl": {
            **{method: interval(found) for method, found in distances.items()},
            "difference": interval(distances["distill"] - distances["finetune"]),
        },
    }
