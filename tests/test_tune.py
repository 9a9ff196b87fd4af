"""Rates are chosen on one grid for both losses, on the calibration split, and inside the grid."""

import csv
import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from conftest import PARAMS
from regrow.commands import tune
from regrow.compare.study import Cell
from regrow.support.errors import UserError
from regrow.support.schema import Params
from tiny_models import regrow


def curve(best):
    """Tries whose accuracy falls with the distance from a rate; they are noted by loss."""
    tried = {}

    def attempt(loss, rate):
        tried.setdefault(loss, set()).add(rate)
        away = abs(math.log(float(rate) / best[loss]))
        return round(1 - away / 10, 3), 1.0

    return attempt, tried


def test_a_grid_grows_for_both_losses_until_the_best_of_each_lies_inside():
    attempt, tried = curve({"finetune": 4e-3, "distill": 5e-4})
    found = tune._search(["5e-4", "1e-3", "2e-3"], ["finetune", "distill"], attempt)
    grid = ["2.5e-4", "5e-4", "1e-3", "2e-3", "4e-3", "8e-3"]
    assert list(found["finetune"]) == list(found["distill"]) == grid
    assert tried["finetune"] == tried["distill"] == set(grid)
    assert {loss: tune._best(tries) for loss, tries in found.items()} == {
        "finetune": "4e-3",
        "distill": "5e-4",
    }


def test_a_grid_grows_a_few_steps_at_most():
    attempt, _ = curve({"distill": 1e-9})
    found = tune._search(["5e-4", "1e-3"], ["distill"], attempt)
    assert len(found["distill"]) == 2 + tune.EXTENSIONS


def test_of_equal_accuracies_the_lower_nll_wins_and_what_diverged_never_does():
    tries = {"1e-3": (0.4, 1.3), "2e-3": (0.4, 1.2), "4e-3": None}
    assert tune._best(tries) == "2e-3"
    assert tune._best({"4e-3": tries["4e-3"]}) is None


def test_a_rate_is_ranked_by_its_mean_over_the_seeds_and_by_none_where_one_diverged(tmp_path):
    params = Params.model_validate(PARAMS)
    params = params.model_copy(update={"sweep": params.sweep.model_copy(update={"seed": [3, 4]})})
    name = f"calibration.accuracy_{params.compare.accuracy}"
    cell = Cell("l2", 0.5, 8)
    for seed, (accuracy, nll) in {3: (0.25, 1.0), 4: (0.75, 2.0)}.items():
        numbers = {name: accuracy, "calibration.gold_nll": nll}
        for rate in ("1e-3", "2e-3"):
            (tmp_path / f"distill-{cell}-{seed}-{rate}.json").write_text(json.dumps(numbers))
    (tmp_path / f"distill-{cell}-4-2e-3.json").write_text('{"diverged": "the loss is nan"}')
    tries = [tune._tried(params, tmp_path, cell, None, "distill", r) for r in ("1e-3", "2e-3")]
    assert tries == [(0.5, 1.5), None]


@pytest.mark.parametrize("rates", ["1e-3", "1e-3,fast", "0,1e-3", "1e-3,2"])
def test_a_grid_that_is_none_is_refused(rates):
    with pytest.raises(UserError, match=r"--rates is .* two or more numbers between 0 and 1"):
        tune._grid(rates)


def test_rates_are_chosen_by_one_command_that_goes_on_where_it_was(study, monkeypatch, capsys):
    monkeypatch.setattr(tune, "EXTENSIONS", 0)
    # One pruned model diverges at any rate.
    folder = study.root / "models/pruned/l2-0.5"
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = math.nan
    for path in folder.glob("*.safetensors"):
        path.unlink()
    model.save_pretrained(folder)
    command = ("tune", "--out", "tuning/tiny", "--rates", "1e-3,3e-3,9e-3")
    assert regrow(monkeypatch, study.root, *command) == 0
    out = study.root / "tuning/tiny"
    names = {
        f"{loss}-l2-{sparsity}-8-0-{rate}"
        for loss in ("finetune", "distill")
        for sparsity in ("0.25", "0.5")
        for rate in ("1e-3", "3e-3", "9e-3")
    }
    tries = {path.stem: json.loads(path.read_text("utf-8")) for path in out.glob("*.json")}
    assert set(tries) == names
    for name, numbers in tries.items():
        if "-0.5-" in name:
            assert "the loss is nan at step 1" in numbers["diverged"]
        else:
            kept = {key for key in numbers if "." in key}
            assert kept and all(key.startswith("calibration.") for key in kept)
    # A rate of params.yaml gives what the stages gave.
    made = json.loads((study.root / "metrics/evaluate/distill/l2-0.25-8-0.json").read_text())
    for key, value in tries["distill-l2-0.25-8-0-3e-3"].items():
        assert made[key] == value
    with (out / "rates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and sum(row["best"] == "True" for row in rows) == 2
    printed = capsys.readouterr().out
    for loss in ("finetune", "distill"):
        (best,) = (r["learning_rate"] for r in rows if r["best"] == "True" and r["loss"] == loss)
        assert f'{loss}.learning_rate: {{"l2": {{"0.25": {float(best)}}}}}\n' in printed
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    monkeypatch.setattr(tune, "retrain", None)
    assert regrow(monkeypatch, study.root, *command) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.json")} == before
