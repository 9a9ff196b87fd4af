"""One study's predictions by run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrow.evaluate.predictions import Predictions, read_predictions
from regrow.support.errors import UserError
from regrow.support.schema import Sweep

LOSSES = ("finetune", "distill")
"""The methods that retrain; also the folders of their models and predictions."""
METHODS = ("teacher", "pruned", *LOSSES)
Study = Mapping[str, Predictions]
"""Predictions by run: `teacher`, `pruned/I-S`, `finetune/I-S-N-R` and `distill/I-S-N-R`."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """What the runs of two losses share but for their seeds."""

    score: str
    sparsity: float
    train_size: int

    def __str__(self) -> str:
        return f"{self.score}-{self.sparsity}-{self.train_size}"

    @property
    def pruned(self) -> str:
        """The run of the pruned model, such as `pruned/l2-0.2`."""
        return f"pruned/{self.score}-{self.sparsity}"

    def run(self, loss: str, seed: int) -> str:
        """The run of a student, such as `finetune/l2-0.2-600-0`."""
        return f"{loss}/{self}-{seed}"

    def runs(self, method: str, seeds: Sequence[int]) -> list[str]:
        """The runs of a method: one a seed where it retrains."""
        if method in LOSSES:
            return [self.run(method, seed) for seed in seeds]
        return [self.pruned if method == "pruned" else method]


def cells_of(sweep: Sweep) -> list[Cell]:
    """The cells of a sweep, by score, train size and sparsity."""
    return [
        Cell(score, sparsity, train_size)
        for score in sweep.score
        for train_size in sorted(sweep.train_size)
        for sparsity in sorted(sweep.sparsity)
    ]


def run_names(sweep: Sweep) -> list[str]:
    """The runs of a sweep, named as DVC names the items of its matrix."""
    cells = cells_of(sweep)
    students = [cell.run(loss, seed) for loss in LOSSES for cell in cells for seed in sweep.seed]
    return ["teacher", *dict.fromkeys(cell.pruned for cell in cells), *students]


def start_of(run: str) -> str:
    """The run of the pruned model that a student was trained from; "" of what is no student."""
    loss, _, item = run.partition("/")
    return f"pruned/{item.rsplit('-', 2)[0]}" if loss in LOSSES else ""


def read_study(folder: Path, sweep: Sweep) -> Study:
    """Read the predictions that the sweep names; what else lies there is left alone."""
    return {name: read_predictions(folder / f"{name}.parquet") for name in run_names(sweep)}


def differing(one: Predictions, other: Predictions) -> str:
    """The first part in which the questions of two runs differ, as `ids`; "" where none does."""
    parts = ("ids", "splits", "answers", "characters")
    return next((part for part in parts if getattr(one, part) != getattr(other, part)), "")


def check_study(study: Study) -> None:
    """Raise `UserError` unless all runs answer the same questions and students equal their start.

    Questions must be equal in id, split, gold choice and length of choices, and be in the same
    order; a student must have as many parameters as the pruned model that it was trained from.
    """
    teacher = study["teacher"]
    if "test" not in teacher.splits:
        raise UserError("the predictions hold no question of the test split; run `dvc repro`")
    if not teacher.mlp_parameters:
        raise UserError("the teacher has no MLP parameters, so nothing of it can be retained")
    for name, run in study.items():
        if part := differing(run, teacher):
            raise UserError(
                f"the predictions of {name} and of teacher differ in the questions' {part}, "
                "so they cannot be compared; run `dvc repro`"
            )
        start = study[start_of(name) or name]
        if (run.parameters, run.mlp_parameters) != (start.parameters, start.mlp_parameters):
            raise UserError(
                f"{name} has {run.parameters} parameters but its pruned start has "
                f"{start.parameters}, so it was trained from another model; run `dvc repro`"
            )
