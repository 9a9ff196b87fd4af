"""The device's files with what each answered, for the comparison of models and formats.

A file is one model in one format, as `distill/l2-0.2-600/Q8_0`; with several seeds it stands for
the files of all, which are of one size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from regrow.compare.answers import Answers, fitted_temperature
from regrow.compare.bootstrap import Array
from regrow.compare.study import LOSSES, Cell, cells_of
from regrow.compare.uncertainty import conformal_scores, conformal_thresholds, gold_scores
from regrow.evaluate.predictions import Predictions, read_predictions
from regrow.support.errors import UserError
from regrow.support.files import read_json
from regrow.support.schema import Compare, Sweep

EXACT = "F32"
ALPHA = 0.1  # sets hold the gold choice for all but this share of the questions


@dataclass(frozen=True)
class File:
    """One model in one format: its size, and what it answered to the test questions.

    Arrays are (seeds, questions). hits: 1 where it is right. nll: of the gold choice after
    temperature scaling, nats; NaN where nothing can be fitted. sets: choices in its conformal set.
    same: 1 where it chooses as the same model does in F32.
    """

    name: str
    method: str
    cell: Cell | None
    form: str
    bytes: int
    layout: str
    hits: Array
    nll: Array
    sets: Array
    same: Array


def read_files(
    predictions: Path,
    records: Path,
    runs: Sequence[str],
    formats: Mapping[str, Sequence[str]],
    sweep: Sweep,
    settings: Compare,
) -> tuple[dict[str, File], Predictions]:
    """Every model of `runs` in its formats, by name; and the test questions.

    Args:
        runs: names of the study's runs; every seed of a model or none.
        formats: those of `teacher`, and of the others under `students`.

    Raises:
        UserError: a seed is missing, or two files answer other questions.
    """
    models: dict[str, tuple[str, Cell | None, list[str]]] = {
        "teacher": ("teacher", None, ["teacher"])
    }
    for place, method in product(cells_of(sweep), ("pruned", *LOSSES)):
        name = place.pruned if method == "pruned" else f"{method}/{place}"
        models[name] = (method, place, place.runs(method, sweep.seed))
    files: dict[str, File] = {}
    first: Predictions | None = None
    for name, (method, cell, members) in models.items():
        there = [run for run in members if run in runs]
        if there and there != members:
            raise UserError(f"of the seeds of {name} only {', '.join(there)} is in runs; add all")
        exact: list[Answers] = []
        for form in formats["teacher" if method == "teacher" else "students"] if there else ():
            paths = [predictions / run / f"{form}.parquet" for run in there]
            found = [read_predictions(path) for path in paths]
            first = first or found[0]
            if any(one.ids != first.ids or one.answers != first.answers for one in found):
                raise UserError(f"{paths[0]} answers other questions than the other files")
            record = read_json(records / there[0] / f"{form}.json", "`make edge` makes it")
            tests, held = (
                [Answers.of(one.of_split(split), settings.accuracy) for one in found]
                for split in ("test", "calibration")
            )
            exact = exact or tests
            files[f"{name}/{form}"] = File(
                name=f"{name}/{form}",
                method=method,
                cell=cell,
                form=form,
                bytes=record["bytes"],
                layout=record["layout"],
                hits=np.stack([one.hits for one in tests]),
                nll=np.stack(list(map(_scaled_nll, tests, held))),
                sets=np.stack(list(map(_set_sizes, tests, held))),
                same=1.0 * np.equal([one.chosen for one in tests], [one.chosen for one in exact]),
            )
    if first is None:
        raise UserError("runs names no model of the sweep")
    return files, first.of_split("test")


def _scaled_nll(test: Answers, held: Answers) -> Array:
    temperature = fitted_temperature(held)
    return test.at(temperature).nll if temperature else np.full(len(test), np.nan)


def _set_sizes(test: Answers, held: Answers) -> Array:
    """Choices in each question's least ambiguous set (LAC), which holds the gold one in 90 %."""
    gold = gold_scores(held, conformal_scores(held, "lac"))
    threshold = conformal_thresholds(gold, ALPHA)[0]
    scores = conformal_scores(test, "lac")
    return np.asarray(((scores <= threshold) & np.isfinite(scores)).sum(axis=1), dtype=np.float64)
