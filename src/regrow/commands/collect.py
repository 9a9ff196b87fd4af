"""Keep a study's results: what is in git of it, its predictions, and no checkpoint."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from regrow.compare.study import run_names
from regrow.support.errors import UserError
from regrow.support.files import read_yaml, replacing
from regrow.support.params import read_params
from regrow.support.schema import Sweep

ENVIRONMENT = Path("environment.json")
WHOLE = ("metrics/summary.json", "metrics/compare", "metrics/importance.json")


def main(out: Path) -> None:
    """Copy the results of the sweep in params.yaml: what an earlier sweep left stays behind.

    Args:
        out: folder to write; one that exists is replaced.
    """
    params = read_params()
    with replacing(out) as beside:
        beside.mkdir()
        shutil.copyfile("params.yaml", beside / "params.yaml")
        _copy_lock(Path("dvc.lock"), beside / "dvc.lock", params.sweep)
        _copy(ENVIRONMENT, beside / ENVIRONMENT, f"regrow doctor --record {ENVIRONMENT}")
        for path in _results(params.sweep):
            _copy(path, beside / path)
        for name in run_names(params.sweep):
            source = Path("data/predictions") / f"{name}.parquet"
            _copy(source, beside / "predictions" / f"{name}.parquet")


def _results(sweep: Sweep) -> Iterator[Path]:
    """Files and folders of metrics/ and plots/ that belong to the sweep."""
    yield from map(Path, WHOLE)
    yield from sorted(path for path in Path("plots").glob("*") if path.name != "training")
    for name in run_names(sweep):
        yield Path("metrics/evaluate") / f"{name}.json"
        if not name.startswith("pruned/"):  # which is not trained
            yield Path("plots/training") / name


def _copy(source: Path, target: Path, made_by: str = "dvc repro") -> None:
    if not source.exists():
        raise UserError(f"{source} does not exist; run `python -m {made_by}` first")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The content alone, not the read-only mode of a file in DVC's cache.
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(source, target)


def _copy_lock(source: Path, target: Path, sweep: Sweep) -> None:
    """DVC keeps what it knows of earlier sweeps in dvc.lock; the copy holds this one only."""
    runs = run_names(sweep)
    # `finetune@l2-0.2-600-0`, and `evaluate@finetune-l2-0.2-600-0`
    items = {name.rpartition("/")[2] for name in runs} | {name.replace("/", "-") for name in runs}
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    lock = read_yaml(source, "run `dvc repro` first")
    lock["stages"] = {
        name: stage
        for name, stage in lock["stages"].items()
        if "@" not in name or name.partition("@")[2] in items
    }
    with target.open("w", encoding="utf-8") as file:
        yaml.dump(lock, file)
