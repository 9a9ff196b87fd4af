"""The stage evidence: measures, paired tests, claims, curves and figures of simulated studies."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import binomtest

from regrow.compare.bootstrap import Interval
from regrow.compare.claims import claims_json, position
from regrow.compare.curves import all_curves, wilson
from regrow.compare.evidence import gather
from regrow.compare.measures import MEASURES
from regrow.compare.significance import holm
from regrow.compare.study import METHODS, Study
from regrow.compare.tables import comparison_json, measures_json, paired_json, summary_json
from regrow.evaluate.predictions import Predictions
from regrow.plot.figures import figures
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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of others
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
    drawn = figures(all_curves(evidence), comparison_json(evidence))
    if held == 0:
        for name, figure in drawn.items():
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
    for row in (row for row in curves["measures"] if row["method"] == "distill"):
        cell = cells[f"l2-{row['sparsity']}-{row['train_size']}"]
        assert row["nll"] == cell["nll"]["distill"]["estimate"]
        assert row["set_size_high"] == cell["lac_size_0.1"]["distill"]["high"]
    for row in (row for row in curves["risk"] if row["method"] == "finetune"):
        if row["coverage"] == 1:
            cell = accuracy[f"l2-{row['sparsity']}-{row['train_size']}"]
            assert row["risk"] == pytest.approx(1 - cell["finetune"]["estimate"])
    assert len(curves["risk"]) == len(METHODS) * 80


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


def answered(run: Predictions, right: float, seed: int = 0) -> Predictions:
    """The same questions of five choices, that share of them answered right, at random."""
    hits = np.random.default_rng(seed).random(len(run)) < right
    chosen = [gold if hit else (gold + 1) % 5 for gold, hit in zip(run.answers, hits, strict=True)]
    scores = [[-1.0 if place == one else -3.0 for place in range(5)] for one in chosen]
    return dataclasses.replace(run, log_probs=scores)


@pytest.fixture(scope="module")
def floored() -> Any:
    """At 0.2 both students regrow and KL leads; at 0.85 KL leads as much, and nothing regrew."""
    sweep = sweep_of(sparsity=(0.2, 0.85), train_size=(200, 600))
    study = simulated_study(sweep, test=400, calibration=40)
    teacher = study["teacher"]
    for sparsity, pruned, ce, kl in ((0.2, 0.3, 0.5, 0.7), (0.85, 0.3, 0.05, 0.25)):
        study[f"pruned/l2-{sparsity}"] = dataclasses.replace(
            answered(teacher, pruned, 1),
            parameters=round(1000 - 600 * sparsity),
            mlp_parameters=round(600 - 600 * sparsity),
        )
        start = study[f"pruned/l2-{sparsity}"]
        for size in (200, 600):
            study[f"finetune/l2-{sparsity}-{size}-0"] = answered(start, ce, size)
            study[f"distill/l2-{sparsity}-{size}-0"] = answered(start, kl, size + 1)
    return study, sweep


def test_a_cell_where_nothing_regrew_gives_no_verdict(floored: Any) -> None:
    evidence = gather(*floored, SETTINGS)
    cells = paired_json(evidence)["sweep"]
    assert cells["l2-0.2-600"]["regrew"] == ["finetune", "distill"]
    assert cells["l2-0.2-600"]["verdict"] == "superior"
    nothing = cells["l2-0.85-600"]
    assert nothing["p"] < 1e-6  # a clear difference between two students at the floor
    assert (nothing["regrew"], nothing["holm_p"]) == ([], None)
    assert nothing["verdict"] == "not testable"
    found = claims_json(evidence)
    assert "1 cell" not in found["kl_matches_ce"]["why"]
    assert "of 2 cells" in found["kl_matches_ce"]["why"]
    assert "in 2 more nothing regrew" in found["kl_matches_ce"]["why"]
    # Retention at 0.85 is 49 %: the paper's cell, which says nothing here.
    assert found["three_to_five_points"]["verdict"] == "not testable"
    assert found["three_to_five_points"]["why"].startswith("Nothing regrew")
    gap = comparison_json(evidence)["sweep"]["l2-0.2-600"]["difference"]["estimate"]
    assert found["kl_matches_ce"]["estimate"] == pytest.approx(gap, abs=0.05)


def test_what_was_named_before_is_one_family_and_the_rest_is_corrected_over_all() -> None:
    sweep = sweep_of(sparsity=(0.1, 0.2, 0.4))
    study = simulated_study(sweep, test=150, calibration=10, gain=0.35, seed=3)
    named = compare_settings(resamples=200, primary=["l2-0.2-600"], secondary=["l2-0.1-600"])
    cells = paired_json(gather(study, sweep, named))["sweep"]
    everything = paired_json(gather(study, sweep, SETTINGS))["sweep"]
    assert [cell["named"] for cell in cells.values()] == ["secondary", "primary", "exploratory"]
    assert all(cell["regrew"] for cell in cells.values())
    p = {name: cell["p"] for name, cell in cells.items()}
    family = dict(zip(("l2-0.1-600", "l2-0.2-600"), holm(list(p.values())[:2]), strict=True))
    for name, value in family.items():
        assert cells[name]["holm_p"] == pytest.approx(value)
    assert cells["l2-0.4-600"]["holm_p"] == everything["l2-0.4-600"]["holm_p"]
    rows = all_curves(gather(study, sweep, named))["difference"]
    assert [row["named"] for row in rows] == ["secondary", "primary", "exploratory"]


@pytest.mark.parametrize(
    ("low", "high", "word", "sentence"),
    [
        (0.031, 0.049, "inside", "within the claimed"),
        (0.001, 0.031, "overlapping", "lies above 0"),
        (-0.01, 0.04, "overlapping", "holds 0 too"),
        (0.02, 0.09, "overlapping", "lies above 0"),
        (0.051, 0.131, "above", "larger than the claimed"),
        (-0.02, 0.029, "below", "smaller than the claimed"),
    ],
)
def test_three_to_five_points_are_judged_against_three_to_five(
    low: float, high: float, word: str, sentence: str
) -> None:
    found, why = position(Interval(0.0, low, high))
    assert found == word and sentence in why


def test_data_scaling_is_a_difference_of_differences(written: dict[str, Any]) -> None:
    claim = written["claims"]["lead_grows_with_data"]
    cells, paired = written["comparison"]["sweep"], written["paired"]["sweep"]
    sizes = (200, 2000)
    kept = [s for s in (0.2, 0.85) if all(paired[f"l2-{s}-{n}"]["regrew"] for n in sizes)]
    lead = {
        size: np.mean([cells[f"l2-{s}-{size}"]["difference"]["estimate"] for s in kept])
        for size in sizes
    }
    assert claim["estimate"] == pytest.approx(lead[2000] - lead[200], abs=1e-5)
    assert "equal epochs" in claim["quantity"]
    assert "under KL and by" in claim["why"] and "under CE" in claim["why"]


def test_probabilities_are_those_of_the_scores_that_decide() -> None:
    sweep = sweep_of(sparsity=(0.2,))
    study = simulated_study(sweep, test=80)
    settings = compare_settings(resamples=100, accuracy="per_character")
    evidence = gather(study, sweep, settings)
    for name, model in evidence.models.items():
        run = study[name].of_split("test")
        assert (model.test.chosen == model.test.logs.argmax(axis=1)).all()
        scores = np.array(run.log_probs) / np.array(run.characters)
        assert model.test.logs == pytest.approx(log_softmax(scores, axis=1))
        assert model.raw is not None
        assert model.raw.test.logs == pytest.approx(log_softmax(run.log_probs, axis=1))
    cell = measures_json(evidence)["sweep"]["l2-0.2-600"]
    assert cell["nll"] != cell["nll_raw"]
    assert "accuracy_raw" in cell and "ece_raw" in cell


def test_measures_by_hand() -> None:
    sweep = sweep_of(sparsity=(0.2,))
    evidence = gather(simulated_study(sweep, test=90), sweep, SETTINGS)
    teacher, student = (evidence.models[name] for name in ("teacher", "distill/l2-0.2-600-0"))
    found = measures_json(evidence)["sweep"]["l2-0.2-600"]
    right = teacher.test.hits == 1
    for measure, rows in (("accuracy_teacher_right", right), ("accuracy_teacher_wrong", ~right)):
        wanted = student.test.hits[rows].mean()
        assert found[measure]["distill"]["estimate"] == pytest.approx(wanted, rel=1e-5)
    assert student.scaled is not None and teacher.scaled is not None
    said = [math.log(5) - one.nll.mean() for one in (student.scaled, teacher.scaled)]
    assert found["information"]["distill"]["estimate"] == pytest.approx(said[0] / said[1], rel=1e-5)
    # Its draws are those of the data that each takes, and so is the estimate by scikit-learn.
    for measure in ("nll", "brier"):
        values = getattr(student.test, measure)
        assert found[measure]["distill"]["estimate"] == pytest.approx(values.mean(), rel=1e-5)


def test_a_run_whose_scaling_degenerates_is_told() -> None:
    sweep = sweep_of(sparsity=(0.2,))
    study = simulated_study(sweep, test=60)
    wrong = answered(study["pruned/l2-0.2"], 0.0)
    study["pruned/l2-0.2"] = wrong
    found = measures_json(gather(study, sweep, SETTINGS))
    assert str(found["temperatures"]["pruned/l2-0.2"]).startswith("infinite: ")
    scaled = found["sweep"]["l2-0.2-600"]["nll_scaled"]["pruned"]["estimate"]
    assert scaled == pytest.approx(math.log(5), rel=1e-5)  # uniform, and not worse
    assert found["temperatures"]["teacher"] > 0


def test_what_is_short_is_named() -> None:
    sweep = sweep_of(sparsity=(0.2,))
    for test, held, word in ((1500, 20, "calibration"), (200, 2000, "test")):
        study = simulated_study(sweep, test=test, calibration=held, gain=0.05, seed=2)
        why = claims_json(gather(study, sweep, SETTINGS))["smaller_sets"]["why"]
        assert f"{word} questions" in why, why


def test_the_summary_is_of_the_retentions_nearest_to_90_and_50_percent() -> None:
    sweep = sweep_of(sparsity=(0.15, 0.4, 0.8), train_size=(200, 600), score=("l2", "random"))
    found = summary_json(gather(simulated_study(sweep, test=60), sweep, SETTINGS))
    assert list(found) == ["teacher", "ce91", "kl91", "ce52", "kl52", "lo52", "hi52"]
