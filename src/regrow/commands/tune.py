"""Choose the learning rates of each loss, score and sparsity on the calibration split."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from decimal import Context, Decimal, InvalidOperation
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from regrow.compare.study import LOSSES, Cell
from regrow.distill.divergence import distillation_task
from regrow.distill.reader import Record
from regrow.evaluate.accuracy import summary
from regrow.evaluate.predict import predict, read_part
from regrow.model.folders import load_tokenizer
from regrow.model.forward import read_output_layer
from regrow.model.setup import read_trees
from regrow.model.trees import Tree
from regrow.report.console import print_tables
from regrow.report.parts import Table
from regrow.retrain.cross_entropy import finetuning_task
from regrow.retrain.gradual import retrain
from regrow.retrain.order import training_order
from regrow.retrain.trainer import DivergedError, Task
from regrow.support.errors import UserError
from regrow.support.files import read_json, write_csv, write_json
from regrow.support.params import read_params
from regrow.support.resume import Unfinished
from regrow.support.schema import Params
from regrow.tasks.questions import read_labels

QUESTIONS, LABELS, TEACHER = Path("data/questions"), Path("data/labels"), Path("models/teacher")
EXTENSIONS = 4
"""Steps by which a grid grows at most, on the side where a best rate is at its edge."""

Result = tuple[float, float] | None
"""Of a rate: accuracy as `compare.accuracy` ranks, and gold NLL; None where a seed diverged."""


def main(
    out: Path,
    rates: str,
    scores: str | None = None,
    sparsities: str | None = None,
    losses: str = ",".join(LOSSES),
    train_size: int | None = None,
) -> None:
    """Choose the learning rates of each loss, score and sparsity on the calibration split.

    Both losses get the same grid and so as many tries, a rate being tried with every seed of
    sweep.seed and ranked by their means. A try that lies in --out is not run again.

    Args:
        out: a folder for a JSON file a try, and rates.csv.
        rates: the grid, as 2.5e-4,5e-4,1e-3.
        scores: by default, those of sweep.score.
        sparsities: by default, those of sweep.sparsity.
        losses: which of finetune and distill.
        train_size: by default, the sweep's largest.
    """
    params = read_params()
    sweep, asked = params.sweep, losses.split(",")
    if unknown := [loss for loss in asked if loss not in LOSSES]:
        raise UserError(f"--losses names {unknown[0]!r}, which is none of {', '.join(LOSSES)}")
    grid = _grid(rates)
    task = cache(partial(_task, params))
    tried: dict[tuple[Cell, str], dict[str, Result]] = {}
    for score in scores.split(",") if scores else sweep.score:
        for sparsity in map(float, sparsities.split(",")) if sparsities else sweep.sparsity:
            cell = Cell(score, sparsity, train_size or max(sweep.train_size))
            attempt = partial(_tried, params, out, cell, task)
            for loss, tries in _search(grid, asked, attempt).items():
                tried[cell, loss] = tries
    _report(tried, out, len(sweep.seed))


def _grid(rates: str) -> list[str]:
    """The rates as they are given, the lowest first."""
    try:
        grid = sorted(rates.split(","), key=Decimal)
        if len(grid) < 2 or not all(0 < Decimal(rate) < 1 for rate in grid):
            raise ValueError
    except (InvalidOperation, ValueError):
        raise UserError(
            f"--rates is {rates!r}, but must be two or more numbers between 0 and 1, as "
            "2.5e-4,5e-4,1e-3"
        ) from None
    return grid


def _task(params: Params, loss: str) -> tuple[list[Tree], Task]:
    """The train questions, and what a loss is trained on, as the stages of these names take it."""
    questions, tokenizer = QUESTIONS / "train.jsonl", load_tokenizer(TEACHER)
    asked, trees = read_trees(questions, tokenizer, params.prompt.format)
    if loss == "finetune":
        labels = Path("data") / params.finetune.labels / "train.jsonl"
        return trees, finetuning_task(trees, read_labels(labels, asked), params.finetune.positions)
    settings, compute = params.distill, params.compute
    output = partial(read_output_layer, TEACHER, compute.dtype, compute.device)
    gold = settings.branches == "gold"
    return trees, distillation_task(
        trees,
        [question.id for question in asked],
        Record(Path("data/teacher_logits"), output),
        settings.temperature,
        settings.divergence,
        read_labels(LABELS / "distill-gold.jsonl", asked) if gold else None,
    )


def _tried(
    params: Params,
    out: Path,
    cell: Cell,
    task: Callable[[str], tuple[list[Tree], Task]],
    loss: str,
    rate: str,
) -> Result:
    """A rate's means over the seeds on the calibration split, of tries in `out` or made now."""
    found = []
    for seed in params.sweep.seed:
        path = out / f"{loss}-{cell}-{seed}-{rate}.json"
        if made := not path.exists():
            write_json(path, _try(params, cell, *task(loss), float(rate), seed))
        numbers = read_json(path, "remove it, and it is made again")
        accuracy = numbers.get(f"calibration.accuracy_{params.compare.accuracy}")
        nll = numbers.get("calibration.gold_nll")
        result = None if accuracy is None or nll is None else (accuracy, nll)
        if made:
            print(f"{path}: {_said(result)}", flush=True)
        if result is None:
            return None
        found.append(result)
    accuracies, nlls = zip(*found, strict=True)
    return fmean(accuracies), fmean(nlls)


def _try(
    params: Params, cell: Cell, trees: list[Tree], task: Task, rate: float, seed: int
) -> dict[str, Any]:
    """Retrain a pruned model; return its `summary`, or `diverged` with the reason."""
    compute, pruned = params.compute, Path("models") / cell.pruned
    order = training_order(len(task.trees), cell.train_size, params.training, seed)
    # A try is not worth a state of its own; it starts anew.
    with TemporaryDirectory() as scratch:
        state, log = Unfinished(Path(scratch) / "state", math.inf), Path(scratch) / "log"
        state.folder.mkdir()
        try:
            given = (task, order, rate, params.training, compute, seed, log, state)
            model = retrain(pruned, trees, *given)
        except DivergedError as error:
            return {"diverged": str(error)}
    part = read_part(QUESTIONS, LABELS, "calibration")
    return summary(predict(model, load_tokenizer(pruned), [part], params.prompt.format))


def _search(
    grid: list[str], losses: list[str], attempt: Callable[[str, str], Result]
) -> dict[str, dict[str, Result]]:
    """Every loss's tries by rate, on a grid that grows until the best of each lies inside."""
    for step in range(EXTENSIONS + 1):
        found = {loss: {rate: attempt(loss, rate) for rate in grid} for loss in losses}
        best = {_best(tries) for tries in found.values()}
        beyond = [_beyond(grid[1], grid[0]), _beyond(grid[-2], grid[-1])]
        if step == EXTENSIONS or not {grid[0], grid[-1], None} & best:
            break
        if {grid[0], None} & best:
            grid = [beyond[0], *grid]
        if grid[-1] in best and Decimal(beyond[1]) < 1:
            grid = [*grid, beyond[1]]
    return found


def _beyond(inner: str, edge: str) -> str:
    """The next rate beyond the edge of a grid, as far from it as the one inside, as `4e-3`."""
    step = Decimal(edge) / Decimal(inner)
    return f"{Context(prec=3).multiply(Decimal(edge), step).normalize():e}"


def _best(tries: Mapping[str, Result]) -> str | None:
    """The rate of the highest accuracy, of equal ones that of the lowest gold NLL."""
    ranks = {rate: (found[0], -found[1]) for rate, found in tries.items() if found}
    return max(ranks, key=ranks.__getitem__, default=None)


def _said(found: Result) -> str:
    return "diverged" if found is None else f"{found[0]:.1%}, NLL {found[1]:.3f}"


def _report(tried: Mapping[tuple[Cell, str], Mapping[str, Result]], out: Path, seeds: int) -> None:
    """Write rates.csv; print every try, and what of `params.yaml` the best ones are."""
    rows, shown = [], []
    chosen: dict[str, dict[str, dict[str, float]]] = {}
    for (cell, loss), tries in tried.items():
        best, (lowest, *_, highest) = _best(tries), tries
        for rate, result in tries.items():
            accuracy, nll = result or (None, None)
            run = {**asdict(cell), "seeds": seeds, "loss": loss, "learning_rate": rate}
            rows.append({**run, "accuracy": accuracy, "gold_nll": nll, "best": rate == best})
            mark = (
                "" if rate != best else "best, at the edge" if rate in (lowest, highest) else "best"
            )
            shown.append([str(cell), loss, rate, _said(result), mark])
        if best:
            of_score = chosen.setdefault(loss, {}).setdefault(cell.score, {})
            of_score[str(cell.sparsity)] = float(best)
    write_csv(out / "rates.csv", rows)
    head = ["Cell", "Loss", "Rate", "Calibration", "Of its grid"]
    print_tables([Table("Rates, on the calibration split", head, shown)])
    for loss, by_score in chosen.items():
        print(f"{loss}.learning_rate: {json.dumps(by_score)}")
