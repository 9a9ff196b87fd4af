"""One study's predictions → accuracy of every method and the paired differences, by retention."""

from dataclasses import dataclass

import numpy as np

from regrow.compare.bootstrap import (
    Array,
    Interval,
    accuracy_interval,
    difference_interval,
    resample,
)
from regrow.compare.study import METHODS, Study, check_study, student_run
from regrow.evaluate.accuracy import chance, longest_choice, right
from regrow.evaluate.ranking import Normalisation
from regrow.support.files import rounded
from regrow.support.schema import Compare, Sweep

COLUMNS = (
    "sparsity",
    "train_size",
    "mlp_retention",
    "retention",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "questions",
    "seeds",
)


@dataclass(frozen=True)
class Cell:
    """One sparsity and train size: the accuracies, and accuracy of distill minus finetune."""

    sparsity: float
    train_size: int
    retention: float
    mlp_retention: float
    teacher: Interval
    pruned: Interval
    finetune: Interval
    distill: Interval
    difference: Interval


@dataclass(frozen=True)
class Comparison:
    """All cells, by train size and then sparsity, and what they stand on."""

    questions: int
    seeds: int
    normalisation: Normalisation
    confidence: float
    chance: float
    longest_choice: float
    cells: list[Cell]


def compare(study: Study, sweep: Sweep, settings: Compare) -> Comparison:
    """Accuracies on the test split with intervals, for every sparsity and train size.

    All intervals stand on the same draws of questions (and seeds), so that every difference is
    paired; see `regrow.compare.bootstrap.resample` for what several seeds add.
    """
    check_study(study)
    study = {name: run.of_split("test") for name, run in study.items()}
    teacher = study["teacher"]
    draws = resample(len(teacher), len(sweep.seed), settings.resamples, settings.seed)
    scores = {name: right(run, settings.accuracy) for name, run in study.items()}

    def accuracy(values: Array) -> Interval:
        return accuracy_interval(values, draws, settings.confidence)

    teacher_accuracy = accuracy(scores["teacher"][None])
    pruned = {sparsity: accuracy(scores[f"pruned/{sparsity}"][None]) for sparsity in sweep.sparsity}
    cells = []
    for train_size in sorted(sweep.train_size):
        for sparsity in sorted(sweep.sparsity):
            finetune, distill = (
                np.stack(
                    [scores[student_run(folder, sparsity, train_size, seed)] for seed in sweep.seed]
                )
                for folder in ("finetuned", "distilled")
            )
            size = study[f"pruned/{sparsity}"]
            cells.append(
                Cell(
                    sparsity=sparsity,
                    train_size=train_size,
                    retention=size.parameters / teacher.parameters,
                    mlp_retention=size.mlp_parameters / teacher.mlp_parameters,
                    teacher=teacher_accuracy,
                    pruned=pruned[sparsity],
                    finetune=accuracy(finetune),
                    distill=accuracy(distill),
                    difference=difference_interval(distill, finetune, draws, settings.confidence),
                )
            )
    return Comparison(
        questions=len(teacher),
        seeds=len(sweep.seed),
        normalisation=settings.accuracy,
        confidence=settings.confidence,
        chance=float(chance(teacher).mean()),
        longest_choice=float(longest_choice(teacher).mean()),
        cells=cells,
    )


def as_json(comparison: Comparison) -> dict[str, object]:
    """`metrics/comparison.json`: what it stands on, then one entry a cell, named `S-N`."""
    return {
        "questions": comparison.questions,
        "seeds": comparison.seeds,
        "accuracy": comparison.normalisation,
        "confidence": comparison.confidence,
        "chance": rounded(comparison.chance),
        "longest_choice": rounded(comparison.longest_choice),
        "sweep": {
            f"{cell.sparsity}-{cell.train_size}": {
                "sparsity": cell.sparsity,
                "train_size": cell.train_size,
                "retention": rounded(cell.retention),
                "mlp_retention": rounded(cell.mlp_retention),
                **{
                    name: _interval_as_json(getattr(cell, name))
                    for name in (*METHODS, "difference")
                },
            }
            for cell in comparison.cells
        },
    }


def curve(comparison: Comparison, method: str) -> list[list[object]]:
    """The rows of one of `METHODS`, with `COLUMNS`, a row for each cell.

    The teacher, which is the same everywhere, stands at each retention of the sweep too, so that
    it draws as a level line beside the curves of the students.
    """
    rows: list[list[object]] = []
    for cell in comparison.cells:
        interval = _interval_as_json(getattr(cell, method))
        rows.append(
            [
                cell.sparsity,
                cell.train_size,
                rounded(cell.mlp_retention),
                rounded(cell.retention),
                *interval.values(),
                comparison.questions,
                1 if method in ("teacher", "pruned") else comparison.seeds,
            ]
        )
    return rows


def _interval_as_json(interval: Interval) -> dict[str, float | None]:
    return {
        "estimate": rounded(interval.estimate),
        "low": None if interval.low is None else rounded(interval.low),
        "high": None if interval.high is None else rounded(interval.high),
    }
