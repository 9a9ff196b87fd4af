"""Contrasts between runs of several studies."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from statsmodels.stats.contingency_tables import mcnemar

from conftest import ROOT
from regrow.compare.controls import read_settings
from regrow.compare.evidence import gather
from regrow.compare.tables import paired_json
from regrow.evaluate.accuracy import right
from regrow.evaluate.predictions import write_predictions
from regrow.support.files import write_json
from simulated import simulated_study, sweep_of
from tiny_models import regrow

FILE = """
arms:
  KL: {study: base, runs: [distill/l2-0.2-600-0]}
  CE: {study: base, runs: [finetune/l2-0.2-600-0]}
  CE elsewhere: {study: other, runs: [finetune/l2-0.2-600-0]}
contrasts:
  - {question: Which loss?, arm: KL, other: CE}
  - {question: Which study?, arm: CE elsewhere, other: CE}
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two studies' results, of equal cross-entropy; the other gains more by KL."""
    sweep = sweep_of((0.2,))
    for name, gain in (("base", 0.6), ("other", 2.0)):
        for run, predictions in simulated_study(sweep, test=150, gain=gain, seed=1).items():
            write_predictions(tmp_path / name / "predictions" / f"{run}.parquet", predictions)
        (tmp_path / name / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "controls.yaml").write_text(FILE, encoding="utf-8")
    return tmp_path


def run(monkeypatch, folder: Path, *more: str) -> str | int:
    options = ("--results", ".", "--controls", "controls.yaml", "--out", "controls.json")
    return regrow(monkeypatch, folder, "controls", *options, *more)


def test_contrasts_are_paired_differences_with_exact_tests(results, monkeypatch, capsys) -> None:
    assert run(monkeypatch, results) == 0
    found = json.loads((results / "controls.json").read_text("utf-8"))
    study = simulated_study(sweep_of((0.2,)), test=150, gain=0.6, seed=1)
    hits = {
        name: right(study[f"{folder}/l2-0.2-600-0"].of_split("test"), "per_character")
        for name, folder in (("KL", "distill"), ("CE", "finetune"))
    }
    for name, values in hits.items():
        assert found["arms"][name]["accuracy"]["estimate"] == pytest.approx(values.mean(), 1e-5)
    first = found["contrasts"][0]
    gap = hits["KL"] - hits["CE"]
    assert first["accuracy"]["estimate"] == pytest.approx(gap.mean(), 1e-5)
    table = [[0, int((gap > 0).sum())], [int((gap < 0).sum()), 0]]
    assert first["p"] == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-5)
    # The other study's cross-entropy is the same model, so that its test cannot say, but counts.
    assert first["holm_p"] == pytest.approx(2 * first["p"], rel=1e-5)
    assert found["contrasts"][1]["p"] is None
    shown = capsys.readouterr().out
    assert all(contrast["question"] in shown for contrast in found["contrasts"])


def test_a_lead_may_be_compared_with_another_lead(results, monkeypatch, capsys) -> None:
    more = """  KL elsewhere: {study: other, runs: [distill/l2-0.2-600-0]}
contrasts:
  - {question: More?, arm: KL elsewhere, other: CE elsewhere, less: {arm: KL, other: CE}}
"""
    text = FILE.partition("contrasts:")[0] + more
    (results / "controls.yaml").write_text(text, encoding="utf-8")
    assert run(monkeypatch, results) == 0
    (found,) = json.loads((results / "controls.json").read_text("utf-8"))["contrasts"]
    studies = (simulated_study(sweep_of((0.2,)), test=150, gain=g, seed=1) for g in (2.0, 0.6))
    leads = [
        right(study["distill/l2-0.2-600-0"].of_split("test"), "per_character")
        - right(study["finetune/l2-0.2-600-0"].of_split("test"), "per_character")
        for study in studies
    ]
    gaps = leads[0] - leads[1]
    assert found["accuracy"]["estimate"] == pytest.approx(gaps.mean(), 1e-5)
    assert found["accuracy"]["low"] < gaps.mean() < found["accuracy"]["high"]
    # The exact test by drawing signs.
    signs = np.random.default_rng(0).choice((-1, 1), (20000, len(gaps)))
    share = (abs((signs * gaps).sum(1)) >= abs(gaps.sum())).mean()
    assert found["p"] == pytest.approx(share, abs=0.01)
    assert "(KL elsewhere - CE elsewhere) - (KL - CE)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("arm: KL", "arm: KX"), ["'KX'", "KL, CE, CE elsewhere"]),
        (("{study: base, runs: [dist", "{study: base, rums: [dist"), ["arms.KL.rums"]),
        (("study: other", "study: none"), ["none/predictions", "does not exist"]),
        (("arms:", "arms: ["), ["controls.yaml is not YAML"]),
        (("runs: [distill/l2-0.2-600-0]", "runs: []"), ["arms.KL.runs", "at least 1"]),
    ],
)
def test_a_fault_is_one_sentence(results, monkeypatch, change, words) -> None:
    (results / "controls.yaml").write_text(FILE.replace(*change), encoding="utf-8")
    message = run(monkeypatch, results)
    assert isinstance(message, str)
    assert all(word in message for word in words), message
    assert not (results / "controls.json").exists()


def test_other_questions_are_refused(results, monkeypatch) -> None:
    other = simulated_study(sweep_of((0.2,)), test=149, seed=1)["finetune/l2-0.2-600-0"]
    write_predictions(results / "other/predictions/finetune/l2-0.2-600-0.parquet", other)
    assert "differ in ids" in str(run(monkeypatch, results))


def test_no_arm_is_one_sentence(results, monkeypatch) -> None:
    (results / "controls.yaml").write_text("arms: {}\ncontrasts: []\n", encoding="utf-8")
    message = run(monkeypatch, results)
    assert "controls.yaml: arms: " in str(message) and "at least 1" in str(message)


def test_what_is_not_run_yet_counts_among_the_contrasts(results, monkeypatch) -> None:
    assert run(monkeypatch, results) == 0
    whole = json.loads((results / "controls.json").read_text("utf-8"))
    again = FILE.replace("CE elsewhere", "CE of another day").replace("study: other", "study: none")
    (results / "controls.yaml").write_text(again, encoding="utf-8")
    assert run(monkeypatch, results, "--partial") == 0
    part = json.loads((results / "controls.json").read_text("utf-8"))
    assert part["contrasts"][0] == whole["contrasts"][0]
    assert part["contrasts"][1]["verdict"] == "not run"
    assert part["contrasts"][1]["accuracy"] is part["contrasts"][1]["holm_p"] is None
    assert list(part["arms"]) == ["KL", "CE"]


def test_results_of_another_schema_are_read(results, monkeypatch) -> None:
    params = yaml.safe_load((results / "base/params.yaml").read_text("utf-8"))
    params["prune"]["score"] = "l2"  # once a key
    del params["sweep"]["score"], params["data"]["held_out"]  # once none
    for name in ("primary", "secondary"):
        del params["compare"][name]
    params["compare"]["of_tomorrow"] = 1
    (results / "base/params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert run(monkeypatch, results) == 0
    params["compare"]["resamples"] = "many"
    (results / "base/params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert "base/params.yaml: compare: resamples" in str(run(monkeypatch, results))


def test_a_cell_has_the_same_adjusted_p_as_in_its_study(results, monkeypatch) -> None:
    sweep, settings = sweep_of((0.2,)), read_settings(results / "base/params.yaml")
    study = simulated_study(sweep, test=150, gain=0.6, seed=1)
    paired = paired_json(gather(study, sweep, settings))
    paired["sweep"]["l2-0.2-600"] |= {"holm_p": 0.1234}
    path = results / "base/metrics/compare/paired.json"
    write_json(path, paired)
    assert run(monkeypatch, results) == 0
    first, second = json.loads((results / "controls.json").read_text("utf-8"))["contrasts"]
    assert first["p"] == paired["sweep"]["l2-0.2-600"]["p"]
    assert first["holm_p"] == 0.1234
    assert first["verdict"] == paired["sweep"]["l2-0.2-600"]["verdict"]
    assert second["holm_p"] is None
