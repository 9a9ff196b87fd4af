"""The stage evidence: measures, paired tests, claims, curves and figures of simulated studies."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from regrow.compare.claims import claims_json
from regrow.compare.curves import all_curves, wilson
from regrow.compare.evidence import gather
from regrow.compare.measures import MEASURES
from regrow.compare.study import METHODS, Study
from regrow.compare.tables import comparison_json, measures_json, paired_json, summary_json
from regrow.plot.evidence import evidence_figures
from regrow.plot.style import save
from regrow.support.schema import Sweep
from simulated import compare_settings, simulated_study, sweep_of
from test_compare import SHOW, project, regrow, run_compare

SETTINGS = compare_settings(resamples=200)


def everything(study: Study, sweep: Sweep) -> dict[str, Any]:
    """All that the stage writes as JSON or CSV; a NaN in it is an error."""
    evidence = gather(study, sweep, SETTINGS)
    written = {
        "comparison": comparison_json(evidence),
        "measures": measures_json(evidence),
        "paired": paired_json(evidence),
        "summary": summary_json(evidence),
        "claims": claims_json(evidence),
        "curves": all_curves(evidence),
    }
    return dict(json.loads(json.dumps(written, allow_nan=False)))


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    sweep = sweep_of(sparsity=(0.2, 0.85), train_size=(200, 2000), seed=(0, 1))
    return everything(simulated_study(sweep, test=150, calibration=80), sweep)


def test_every_interval_contains_its_estimate(written: dict[str, Any]) -> None:
    seen = 0

    def walk(value: Any) -> None:
        nonlocal seen
        if isinstance(value, dict) and value.get("low") is not None:
            assert value["low"] <= value["estimate"] <= value["high"]
            seen += 1
        for part in value.values() if isinstance(value, dict) else ():
            walk(part)

    walk(written)
    assert seen > 300


def test_every_measure_of_every_method_is_there(written: dict[str, Any]) -> None:
    cells = written["measures"]["sweep"]
    assert list(cells) == ["l2-0.2-200", "l2-0.85-200", "l2-0.2-2000", "l2-0.85-2000"]
    shown = [name for name in MEASURES if name != "accuracy" and not name.endswith("_raw")]
    assert list(written["measures"]["measures"]) == shown
    of_students = {"recovery"}
    of_others = {
        *("agreement", "kl", "kl_scaled", "information"),
        *("accuracy_teacher_right", "accuracy_teacher_wrong"),
    }
    for cell in cells.values():
        assert list(cell) == shown
        for measure, methods in cell.items():
            wanted = {*METHODS, "difference"}
            wanted -= {"teacher"} if measure in of_others | of_students else set()
            assert set(methods) == wanted - ({"pruned"} if measure in of_students else set())


def test_recovery_is_the_share_of_the_loss(written: dict[str, Any]) -> None:
    for name, cell in written["measures"]["sweep"].items():
        of_cell = written["comparison"]["sweep"][name]
        accuracy = {method: of_cell[method]["estimate"] for method in METHODS}
        for method in ("finetune", "distill"):
            share = (accuracy[method] - accuracy["pruned"]) / (
                accuracy["teacher"] - accuracy["pruned"]
            )
            assert cell["recovery"][method]["estimate"] == pytest.approx(share, rel=1e-4)


def test_planted_gains_are_found(written: dict[str, Any]) -> None:
    claims = written["claims"]
    for name in ("kl_matches_ce", "better_nll", "labels_not_needed"):
        assert claims[name]["verdict"] == "supported", name
    assert claims["uncertainty_improves_with_data"]["verdict"] == "supported"
    # The simulated gain at half of the parameters is larger than the claimed one.
    assert claims["three_to_five_points"]["estimate"] is not None
    assert "at 49 % retention" in claims["three_to_five_points"]["quantity"]
    for cell in written["paired"]["sweep"].values():
        if cell["regrew"]:
            assert cell["p"] <= cell["holm_p"] <= 1
        else:
            assert (cell["holm_p"], cell["verdict"]) == (None, "not testable")
        assert 0.01 < cell["detectable"] < 0.2


def test_a_planted_loss_contradicts_and_a_planted_zero_settles_nothing() -> None:
    sweep = sweep_of(sparsity=(0.2, 0.4))
    worse = everything(simulated_study(sweep, test=600, gain=-1.0), sweep)["claims"]
    assert worse["kl_matches_ce"]["verdict"] == "contradicted"
    assert worse["better_nll"]["verdict"] == "contradicted"
    equal = everything(simulated_study(sweep, test=150, gain=0.0), sweep)["claims"]
    assert equal["better_nll"]["verdict"] == "inconclusive"
    assert "test questions" in equal["better_nll"]["why"]
    assert "No model of the sweep keeps 45 to 55 %" in equal["three_to_five_points"]["why"]
    assert "sparsity 0.83 would keep half" in equal["three_to_five_points"]["why"]
    assert "add a second one" in equal["uncertainty_improves_with_data"]["why"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("held", [0, 1, 40])
@pytest.mark.parametrize("case", ["one question", "all equal", "same students", "never pruned"])
def test_what_cannot_be_said_is_null_and_no_crash(tmp_path: Path, case: str, held: int) -> None:
    sweep = sweep_of(sparsity=(0.2,))
    study = simulated_study(
        sweep, test=1 if case == "one question" else 25, calibration=held, choices=(2, 5, 3)
    )
    if case == "all equal":
        study = {
            name: dataclasses.replace(run, log_probs=[[-3.0] * len(row) for row in run.log_probs])
            for name, run in study.items()
        }
    if case == "same students":
        study["distill/l2-0.2-600-0"] = study["finetune/l2-0.2-600-0"]
    if case == "never pruned":
        study["pruned/l2-0.2"] = dataclasses.replace(
            study["teacher"], parameters=880, mlp_parameters=480
        )
    found = everything(study, sweep)
    cell = found["measures"]["sweep"]["l2-0.2-600"]
    if case in ("all equal", "same students"):
        assert found["paired"]["sweep"]["l2-0.2-600"]["p"] is None
        assert found["paired"]["sweep"]["l2-0.2-600"]["detectable"] is None
        assert cell["nll"]["difference"] == {"estimate": 0, "low": None, "high": None}
        assert found["claims"]["better_nll"]["verdict"] == "not testable"
        assert found["claims"]["better_nll"]["why"].startswith("Nothing regrew")
    if case == "never pruned":
        assert cell["recovery"]["distill"] is None
    if not held:
        assert cell["lac_size_0.1"]["distill"] is None
    evidence = gather(study, sweep, SETTINGS)
    figures = evidence_figures(all_curves(evidence), comparison_json(evidence))
    if held == 0:
        for name, figure in figures.items():
            save(figure, tmp_path / name)


def test_a_cell_that_is_better_for_itself_is_not_among_others_that_are_tested_too() -> None:
    sweep = sweep_of(sparsity=(0.1, 0.2, 0.4))
    study = simulated_study(sweep, test=150, calibration=10, gain=0.25, seed=3)
    among = paired_json(gather(study, sweep, SETTINGS))["sweep"]["l2-0.2-600"]
    alone = paired_json(gather(study, sweep_of(sparsity=(0.2,)), SETTINGS))["sweep"]["l2-0.2-600"]
    assert alone["holm_p"] == alone["p"] == among["p"] < 0.05 <= among["holm_p"]
    assert (alone["verdict"], among["verdict"]) == ("superior", "non-inferior")


def test_the_order_of_questions_moves_estimates_not_at_all() -> None:
    sweep = sweep_of(sparsity=(0.2,))
    study = simulated_study(sweep, test=60, choices=(2, 5, 3))
    order = np.random.default_rng(0).permutation(len(study["teacher"]))
    shuffled = {
        name: dataclasses.replace(
            run,
            **{
                field: [getattr(run, field)[index] for index in order]
                for field in ("ids", "splits", "answers", "log_probs", "tokens", "characters")
            },
        )
        for name, run in study.items()
    }
    before, after = (
        everything(part, sweep)["measures"]["sweep"]["l2-0.2-600"] for part in (study, shuffled)
    )
    for measure in before:
        for method in ("finetune", "distill"):
            if before[measure][method] is not None:
                assert after[measure][method]["estimate"] == pytest.approx(
                    before[measure][method]["estimate"], rel=1e-5, abs=1e-9
                )


def test_wilson_equals_scipys() -> None:
    for hits, size in ((0, 7), (3, 7), (7, 7), (40, 81)):
        theirs = binomtest(hits, size).proportion_ci(0.95, "wilson")
        low, high = wilson(np.array([hits / size]), np.array([float(size)]), 0.95)
        assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_curves_hold_what_the_measures_say(written: dict[str, Any]) -> None:
    curves, cells = written["curves"], written["measures"]["sweep"]
    accuracy = written["comparison"]["sweep"]
    for row in curves["measures/distill"]:
        cell = cells[f"l2-{row['sparsity']}-{row['train_size']}"]
        assert row["nll"] == cell["nll"]["distill"]["estimate"]
        assert row["set_size_high"] == cell["lac_size_0.1"]["distill"]["high"]
    for row in curves["risk/finetune"]:
        if row["coverage"] == 1:
            cell = accuracy[f"l2-{row['sparsity']}-{row['train_size']}"]
            assert row["risk"] == pytest.approx(1 - cell["finetune"]["estimate"])
    assert {len(rows) for name, rows in curves.items() if name.startswith("risk")} == {80}


def test_show_prints_the_claims_and_markdown_tables(tmp_path: Path) -> None:
    sweep = sweep_of(sparsity=(0.2,))
    folder = project(tmp_path, sweep, simulated_study(sweep, test=40))
    assert run_compare(folder).returncode == 0
    done = regrow(folder, *SHOW)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "not testable" in done.stdout and "cannot say" in done.stdout
    table = regrow(folder, *SHOW, "--markdown").stdout
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:6]}) == 1
    assert lines[2].startswith("| 0 | 100.0 % | teacher | ")
    assert any(line.startswith("| Labels are not needed") for line in lines)
