"""Keep a study's results: what is in git of it, its predictions, and no checkpoint."""

import shutil
from pathlib import Path

from regrow.compare.study import run_names
from regrow.report.provenance import of_sweep
from regrow.support.errors import UserError
from regrow.support.files import read_yaml, replacing
from regrow.support.params import read_params

ENVIRONMENT = Path("environment.json")


def main(out: Path) -> None:
    """Copy the results of the sweep in params.yaml: what an earlier sweep left stays behind.

    Args:
        out: folder to write; one that exists is replaced.
    """
    from dvc.utils.serialize import dump_yaml

    params = read_params()
    runs = run_names(params.sweep)
    results = [
        *("metrics/summary.json", "metrics/compare", "metrics/importance.json"),
        *sorted(str(path) for path in Path("plots").glob("*") if path.name != "training"),
        *(f"metrics/evaluate/{run}.json" for run in runs),
        *(f"plots/training/{run}" for run in runs if not run.startswith("pruned/")),
    ]
    with replacing(out) as beside:
        beside.mkdir()
        shutil.copyfile("params.yaml", beside / "params.yaml")
        # DVC keeps what it knows of earlier sweeps in dvc.lock; the copy holds this one only.
        lock = read_yaml(Path("dvc.lock"), "run `dvc repro` first")
        dump_yaml(beside / "dvc.lock", lock | {"stages": of_sweep(lock, params.model_dump())})
        _copy(ENVIRONMENT, beside / ENVIRONMENT, f"regrow doctor --record {ENVIRONMENT}")
        for path in results:
            _copy(Path(path), beside / path)
        for run in runs:
            _copy(Path(f"data/predictions/{run}.parquet"), beside / f"predictions/{run}.parquet")


def _copy(source: Path, target: Path, made_by: str = "dvc repro") -> None:
    if not source.exists():
        raise UserError(f"{source} does not exist; run `python -m {made_by}` first")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The content alone, not the read-only mode of a file in DVC's cache.
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(source, target)
