"""The stages compare and show, run as commands in a folder that holds only what they read."""

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from regrow.compare.evidence import gather
from regrow.compare.study import METHODS, Study, run_names
from regrow.compare.tables import comparison_json
from regrow.evaluate.predictions import Predictions, write_predictions
from regrow.support.errors import UserError
from regrow.support.params import read_params
from regrow.support.schema import Sweep
from simulated import compare_settings, simulated_study, sweep_of

ROOT = Path(__file__).parent.parent
SETTINGS = compare_settings()
SHOW = ("show", "--metrics", "metrics/compare", "--plots", "plots/compare")
JSON = ("claims", "comparison", "measures", "paired")
FIGURES = ("accuracy", "conformal", "difference", "reliability", "risk", "train_size")


def project(folder: Path, sweep: Sweep, study: Study | None = None, **compare: Any) -> Path:
    """A folder with params.yaml and the predictions of `study` (by default, a simulated one)."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["sweep"] = sweep.model_dump()
    params["data"]["train"] = max(sweep.train_size)
    for loss in ("finetune", "distill"):
        params[loss]["learning_rate"] = dict.fromkeys(sweep.score, 1e-3)
    params["compare"] |= {"accuracy": "raw", "resamples": 400, "primary": [], "secondary": []}
    params["compare"] |= compare
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for name, predictions in (study or simulated_study(sweep)).items():
        write_predictions(folder / f"data/predictions/{name}.parquet", predictions)
    return folder


def regrow(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "regrow", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
        check=False,
    )


def run_compare(folder: Path) -> subprocess.CompletedProcess[str]:
    return regrow(
        folder,
        *("compare", "--predictions", "data/predictions"),
        *("--summary", "metrics/summary.json"),
        *("--metrics", "metrics/compare", "--plots", "plots/compare"),
    )


def outputs(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for part in ("metrics", "plots")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }


def test_the_formats_and_equal_bytes_on_a_second_run(tmp_path: Path) -> None:
    sweep = sweep_of(sparsity=(0.4, 0.1), train_size=(600, 200), seed=(0, 7))
    folder = project(tmp_path / "Stüdie 1", sweep)
    done = run_compare(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    first = outputs(folder)
    tables = ("accuracy", "conformal", "measures", "reliability", "risk")
    assert set(first) == {
        "metrics/summary.json",
        *(f"metrics/compare/{name}.json" for name in JSON),
        *(f"plots/compare/{name}.csv" for name in tables),
        "plots/compare/difference.csv",
        *(f"plots/compare/{name}.{kind}" for name in FIGURES for kind in ("png", "svg")),
    }
    again = project(tmp_path / "elsewhere", sweep)
    assert run_compare(again).returncode == 0
    assert outputs(again) == first

    comparison = json.loads(first["metrics/compare/comparison.json"])
    assert list(comparison["sweep"]) == [*("l2-0.1-200", "l2-0.4-200", "l2-0.1-600", "l2-0.4-600")]
    assert (comparison["questions"], comparison["seeds"]) == (120, 2)
    assert comparison["chance"] == pytest.approx(0.2)
    for cell in comparison["sweep"].values():
        assert cell["retention"] == pytest.approx(1 - 0.6 * cell["sparsity"])
        assert cell["mlp_retention"] == pytest.approx(1 - cell["sparsity"])
        for name in (*METHODS, "difference"):
            assert cell[name]["low"] < cell[name]["estimate"] < cell[name]["high"]
        assert cell["difference"]["estimate"] == pytest.approx(
            cell["distill"]["estimate"] - cell["finetune"]["estimate"], abs=1e-5
        )
    drawn = list(csv.DictReader(first["plots/compare/accuracy.csv"].decode().splitlines()))
    for method in METHODS:
        rows = [row for row in drawn if row["method"] == method]
        assert [row["retention"] for row in rows] == ["0.94", "0.76", "0.94", "0.76"]
        for row, cell in zip(rows, comparison["sweep"].values(), strict=True):
            assert float(row["accuracy"]) == cell[method]["estimate"]
            assert float(row["accuracy_low"]) == cell[method]["low"]
            assert float(row["accuracy_high"]) == cell[method]["high"]


def test_a_smaller_sweep_leaves_what_others_need_and_gives_the_bytes_of_a_fresh_one(
    tmp_path: Path,
) -> None:
    large, small = sweep_of(train_size=(200, 600)), sweep_of(sparsity=(0.2,))
    study = simulated_study(large)
    folder = project(tmp_path, small, study)
    before = {path: path.read_bytes() for path in (folder / "data").rglob("*.parquet")}
    assert run_compare(folder).stdout == ""
    assert {path: path.read_bytes() for path in (folder / "data").rglob("*.parquet")} == before
    fresh = project(tmp_path / "fresh", small, {name: study[name] for name in run_names(small)})
    assert run_compare(fresh).stdout == ""
    assert outputs(fresh) == outputs(folder)


def test_a_missing_run_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    folder = project(tmp_path, sweep_of(sparsity=(0.2,)))
    (folder / "data/predictions/distill/l2-0.2-600-0.parquet").unlink()
    done = run_compare(folder)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "regrow compare: data/predictions/distill/l2-0.2-600-0.parquet does not exist; `dvc repro`"
    )
    assert outputs(folder) == {}


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("pruned/l2-0.2", {"ids": ["x"] * 160}, "pruned/l2-0.2 and of teacher differ in .* ids"),
        ("distill/l2-0.2-600-0", {"answers": [0] * 160}, "distill/l2-0.2-600-0 .* answers"),
        (
            "finetune/l2-0.2-600-0",
            {"parameters": 5},
            "has 5 parameters but its pruned start has 880",
        ),
        ("teacher", {"mlp_parameters": 0}, "teacher has no MLP parameters"),
    ],
)
def test_runs_that_do_not_belong_together_are_named(
    name: str, change: dict[str, Any], fault: str
) -> None:
    sweep = sweep_of(sparsity=(0.2,))
    study = simulated_study(sweep)
    study[name] = dataclasses.replace(study[name], **change)
    with pytest.raises(UserError, match=fault):
        gather(study, sweep, SETTINGS)


def test_no_test_question_is_an_error() -> None:
    sweep = sweep_of(sparsity=(0.2,))
    study = {name: run.of_split("calibration") for name, run in simulated_study(sweep).items()}
    with pytest.raises(UserError, match="no question of the test split"):
        gather(study, sweep, SETTINGS)


def equal(run: Predictions) -> Predictions:
    """The same run, but with all choices of a question equally likely."""
    return dataclasses.replace(run, log_probs=[[-3.0] * len(row) for row in run.log_probs])


@pytest.mark.parametrize("test", [1, 2, 40])
@pytest.mark.parametrize("all_equal", [False, True])
@pytest.mark.parametrize("seed", [(0,), (0, 1)])
def test_degenerate_studies_give_finite_intervals(
    tmp_path: Path, test: int, all_equal: bool, seed: tuple[int, ...]
) -> None:
    sweep = sweep_of(sparsity=(0.2,), seed=seed)
    study = simulated_study(sweep, test=test, calibration=0, choices=(2, 5, 3))
    if all_equal:
        study = {name: equal(run) for name, run in study.items()}
    text = json.dumps(comparison_json(gather(study, sweep, SETTINGS)), allow_nan=False)
    cell = json.loads(text)["sweep"]["l2-0.2-600"]
    for name in (*METHODS, "difference"):
        assert cell[name]["low"] < cell[name]["high"]
    if all_equal:
        assert cell["difference"]["estimate"] == 0


def test_a_planted_difference_is_found_and_a_planted_zero_is_not() -> None:
    sweep = sweep_of(sparsity=(0.2, 0.4))
    found = {}
    for gain in (1.0, 0.0):
        study = simulated_study(sweep, test=600, gain=gain)
        cells = comparison_json(gather(study, sweep, SETTINGS))["sweep"].values()
        found[gain] = [cell["difference"] for cell in cells]
    assert all(ends["low"] > 0 for ends in found[1.0])
    assert all(ends["low"] < 0 < ends["high"] for ends in found[0.0])


def test_show_prints_a_table_within_80_columns(tmp_path: Path) -> None:
    folder = project(tmp_path, sweep_of(train_size=(200, 12_000), seed=(0, 1)))
    assert run_compare(folder).returncode == 0
    done = regrow(folder, *SHOW)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "…" not in done.stdout
    assert "plots/compare/accuracy.png\n" in done.stdout
    assert "120 test questions" in done.stdout and "2 seeds" in done.stdout
    assert done.stdout.count("KL distillation") == 8
    for line in done.stdout.splitlines():
        if "KL distillation" in line:
            assert line.count("[") == 2 - ("nothing regrew" in line)


def test_show_loads_nothing_heavy() -> None:
    code = "import sys, regrow.commands.show; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "scipy", "matplotlib", "torch", "pyarrow", "pydantic"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"sweep": {}}'])
def test_show_without_a_comparison_says_what_to_do(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics/compare").mkdir(parents=True)
        (tmp_path / "metrics/compare/comparison.json").write_text(text, encoding="utf-8")
    done = regrow(tmp_path, *SHOW)
    assert done.returncode == 1
    assert re.fullmatch(
        r"regrow show: metrics/compare.* run `make repro` to make it, .*\n", done.stderr
    )


def test_the_committed_sweep_has_run_names() -> None:
    names = run_names(read_params(ROOT / "params.yaml").sweep)
    assert names[0] == "teacher"
    assert len(set(names)) == len(names)
