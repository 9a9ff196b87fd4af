"""`python -m benchmarks.portability`: the study's first steps again, on other arithmetic.

Another processor family is not at hand, but its arithmetic is: with fewer vector instructions, or
another number of threads, every matrix product sums in another order. The teacher is trained, one
sparsity pruned, both losses trained and all four models scored anew, in a clone, and compared with
what lies here.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from regrow.compare.study import run_names
from regrow.evaluate.predictions import read_predictions
from regrow.support.files import write_json
from regrow.support.params import read_params
from regrow.support.schema import Sweep

AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
SETTINGS: dict[str, tuple[Mapping[str, str], int | None]] = {
    "AVX2 instructions": (AVX2, None),
    "1 thread": ({}, 1),
}
METHODS = ("teacher", "pruned", "finetune", "distill", "difference")


def main(
    sparsity: Annotated[float, typer.Option(help="The sparsity to run again.")] = 0.2,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path(
        "benchmarks/portability.json"
    ),
    only: Annotated[str | None, typer.Option(help=f"One of: {', '.join(SETTINGS)}.")] = None,
) -> None:
    """Run the study's one sparsity under other arithmetic; print and keep how far it moves."""
    if only is not None and only not in SETTINGS:
        raise typer.BadParameter(f"choose one of {', '.join(SETTINGS)}", param_hint="--only")
    params = read_params()
    sweep = params.sweep.model_copy(update={"sparsity": [sparsity]})
    settings: dict[str, Any] = {}
    for name in [only] if only else SETTINGS:
        variables, threads = SETTINGS[name]
        with tempfile.TemporaryDirectory() as folder:
            clone = Path(folder) / "study"
            _reproduce(clone, sparsity, variables, threads or params.compute.threads)
            settings[name] = _moved(Path.cwd(), clone, sweep)
    moved = [setting["moved"] for setting in settings.values()]
    retrained = [abs(found[name]) for found in moved for name in ("finetune", "distill")]
    result = {
        "questions": params.data.test,
        "sparsity": sparsity,
        "settings": settings,
        "largest": {
            "teacher": max(abs(found["teacher"]) for found in moved),
            "retrained": max(retrained),
            "difference": max(abs(found["difference"]) for found in moved),
        },
    }
    write_json(out, result)
    Console().print(_table(result))


def _reproduce(clone: Path, sparsity: float, variables: Mapping[str, str], threads: int) -> None:
    """`dvc repro` of one sparsity in a clone with a cache of its own."""
    subprocess.run(["git", "clone", "--quiet", ".", str(clone)], check=True)
    yaml = YAML()
    params = yaml.load((clone / "params.yaml").read_text(encoding="utf-8"))
    params["sweep"]["sparsity"] = [sparsity]
    params["compute"]["threads"] = threads
    yaml.dump(params, clone / "params.yaml")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "compare"],
        cwd=clone,
        env={**os.environ, **variables, "PATH": path},
        check=True,
    )


def _moved(here: Path, there: Path, sweep: Sweep) -> dict[str, Any]:
    """Accuracies in percent, how far they moved in points, and log-probabilities in nats."""
    before, after = (_accuracies(root, sweep) for root in (here, there))
    return {
        "accuracy": after,
        "moved": {name: after[name] - before[name] for name in METHODS},
        "largest_log_prob_change": {
            name: _largest_change(here, there, name) for name in run_names(sweep)
        },
    }


def _accuracies(root: Path, sweep: Sweep) -> dict[str, float]:
    comparison = json.loads((root / "metrics/compare/comparison.json").read_text(encoding="utf-8"))
    (cell,) = (
        found
        for found in comparison["sweep"].values()
        if found["sparsity"] == sweep.sparsity[0] and found["train_size"] == sweep.train_size[0]
    )
    return {name: 100 * cell[name]["estimate"] for name in METHODS}


def _largest_change(here: Path, there: Path, name: str) -> float:
    """Over all questions and choices of the test split."""
    path = f"data/predictions/{name}.parquet"
    before, after = (read_predictions(root / path) for root in (here, there))
    return max(
        abs(one - other)
        for first, second in zip(before.log_probs, after.log_probs, strict=True)
        for one, other in zip(first, second, strict=True)
    )


def _table(result: Mapping[str, Any]) -> Table:
    """A row a setting: how far each accuracy moved."""
    shown = Table(title=f"Moved, in points, on {result['questions']} test questions")
    shown.add_column("")
    for name in METHODS:
        shown.add_column(name, justify="right")
    for name, setting in result["settings"].items():
        shown.add_row(name, *(f"{setting['moved'][method]:+.2f}" for method in METHODS))
    return shown


if __name__ == "__main__":
    typer.run(main)
