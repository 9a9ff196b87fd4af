"""The device's frontier and verdicts, on predictions whose answers are known."""

import json
import math
from itertools import product

import numpy as np
import pytest

from conftest import PARAMS
from regrow.device.choice import doubts, fitting, read_rows
from regrow.device.files import read_files
from regrow.device.frontier import frontier_json, pareto
from regrow.device.measure import spread
from regrow.evaluate.predictions import Predictions, write_predictions
from regrow.report.files import Source
from regrow.report.parts import Table
from regrow.report.tables import on_the_device
from regrow.support.errors import UserError
from regrow.support.schema import Compare, Sweep
from tiny_models import regrow, write_params

QUESTIONS, HELD = 400, 100
SWEEP = Sweep(score=["l2"], sparsity=[0.5], train_size=[8], seed=[0])
SETTINGS = Compare(**{**PARAMS["compare"], "resamples": 500, "accuracy": "raw"})
MB = {"F32": 400, "Q8_0": 100, "Q4_0": 60, "Q4_0-pure": 40}
FORMATS = {"students": ["F32", "Q8_0", "Q4_0"], "teacher": list(MB)}
RUNS = ["teacher", "pruned/l2-0.5", "finetune/l2-0.5-8-0", "distill/l2-0.5-8-0"]


def write_study(folder, accuracies, sizes=0.6, runs=RUNS):
    """Each run's accuracy by format, on nested sets of questions; students are `sizes` as large."""
    answers = [number % 5 for number in range(QUESTIONS + HELD)]
    order = np.random.default_rng(0).permutation(QUESTIONS) / QUESTIONS
    for run in runs:
        method = run.split("/")[0]
        for form in FORMATS["teacher" if method == "teacher" else "students"]:
            share = accuracies[method][form]
            wrong = np.append(order >= share, np.arange(HELD) % 3 == 0)
            logs = [
                [-1.0 if c == (a + w) % 5 else -3.0 for c in range(5)]
                for a, w in zip(answers, wrong, strict=True)
            ]
            path = folder / "predictions" / run / f"{form}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_predictions(
                path,
                Predictions(
                    [f"q{number}" for number in range(QUESTIONS + HELD)],
                    ["test"] * QUESTIONS + ["calibration"] * HELD,
                    answers,
                    logs,
                    [[1] * 5] * len(answers),
                    [[4, 4, 4, 4, 5]] * len(answers),
                    10,
                    5,
                ),
            )
            record = folder / "files" / run / f"{form}.json"
            record.parent.mkdir(parents=True, exist_ok=True)
            size = int(MB[form] * 1e6 * (1 if method == "teacher" else sizes))
            record.write_text(json.dumps({"bytes": size, "layout": f"{size}"}))


def judged(folder, accuracies, **changes):
    write_study(folder, accuracies, **changes)
    read = read_files(folder / "predictions", folder / "files", RUNS, FORMATS, SWEEP, SETTINGS)
    return frontier_json(*read, SETTINGS)


def of_kind(found, kind, measure="accuracy"):
    return {
        one["one"]: one
        for one in found["verdicts"]
        if (one["kind"], one["measure"]) == (kind, measure)
    }


KNOWN = {
    "teacher": {"F32": 0.8, "Q8_0": 0.8, "Q4_0": 0.7, "Q4_0-pure": 0.5},
    "pruned": {"F32": 0.3, "Q8_0": 0.3, "Q4_0": 0.25},
    "finetune": {"F32": 0.4, "Q8_0": 0.4, "Q4_0": 0.4},
    "distill": {"F32": 0.6, "Q8_0": 0.6, "Q4_0": 0.4},
}


def test_known_leads_are_found_and_so_is_one_that_is_lost(tmp_path):
    found = judged(tmp_path, KNOWN)
    loss, lead = of_kind(found, "loss"), of_kind(found, "lead")
    kl, ce = "distill/l2-0.5-8", "finetune/l2-0.5-8"
    for form in ("F32", "Q8_0"):
        assert loss[f"{kl}/{form}"]["difference"]["estimate"] == pytest.approx(0.2)
        assert loss[f"{kl}/{form}"]["verdict"] == "superior"
    assert loss[f"{kl}/Q4_0"]["difference"]["estimate"] == 0
    kept, lost = (lead[f"{kl}/{form} - {ce}/{form}"] for form in ("Q8_0", "Q4_0"))
    assert kept["difference"]["estimate"] == 0 and kept["verdict"] == "non-inferior"
    assert lost["difference"]["estimate"] == pytest.approx(-0.2)
    assert lost["verdict"] == "inferior" and lost["holm_p"] < 1e-6
    same = of_kind(found, "loss", "agreement")[f"{kl}/Q4_0"]
    assert same["difference"]["estimate"] == pytest.approx(-0.2) and same["verdict"] == "inferior"


def test_students_meet_the_teacher_at_equal_bytes(tmp_path):
    # Q8_0 students have the bytes of the teacher's Q4_0, Q4_0 students none.
    whole = judged(tmp_path, KNOWN)
    assert whole["without_teacher"] == [f"{loss}/l2-0.5-8/Q4_0" for loss in ("finetune", "distill")]
    found = of_kind(whole, "bytes")
    assert set(found) == {"distill/l2-0.5-8/Q8_0", "finetune/l2-0.5-8/Q8_0"}
    kl = found["distill/l2-0.5-8/Q8_0"]
    assert kl["other"] == "teacher/Q4_0"
    assert kl["difference"]["estimate"] == pytest.approx(-0.1) and kl["verdict"] == "inferior"


def test_between_two_formats_the_interval_reaches_over_both(tmp_path):
    # Students of 50 and 80 MB, between 40, 60 and 100.
    found = of_kind(judged(tmp_path, KNOWN, sizes=0.8), "bytes")
    between = found["distill/l2-0.5-8/Q8_0"]
    assert between["other"] == "teacher between Q4_0 and Q8_0"
    assert between["difference"]["estimate"] == pytest.approx(0.6 - 0.75)
    assert between["difference"]["low"] < 0.6 - 0.8 and between["difference"]["high"] > 0.6 - 0.7
    assert between["verdict"] == "inferior"


def test_nothing_regrown_is_no_verdict(tmp_path):
    floor = dict.fromkeys(MB, 0.2)
    found = judged(tmp_path, {**KNOWN, "finetune": floor, "distill": floor})
    assert found["longest_choice"] == 0.2
    assert {one["verdict"] for one in of_kind(found, "loss").values()} == {"nothing regrew"}


def test_all_verdicts_are_corrected_together(tmp_path):
    found = judged(tmp_path, KNOWN)["verdicts"]
    known = [one for one in found if one["p"] is not None]
    least = min(known, key=lambda one: one["p"])
    assert least["holm_p"] == pytest.approx(min(1, least["p"] * len(found)), rel=1e-4)
    for one in found:
        decided = one["holm_p"] is not None and one["holm_p"] < 0.05
        assert decided or one["verdict"] not in ("superior", "inferior")


def test_the_frontier_is_what_no_other_file_beats(tmp_path):
    assert pareto({"a": (1, 1), "b": (2, 2), "c": (2, 1), "d": (3, 2), "e": (1, 1)}) == {
        "a",
        "b",
        "e",
    }
    found = judged(tmp_path, KNOWN)["files"]
    on = {name for name, file in found.items() if file["pareto"]}
    for name, other in product(found, found):
        if name in on:
            cheaper = found[other]["bytes"] < found[name]["bytes"]
            better = found[other]["accuracy"]["estimate"] >= found[name]["accuracy"]["estimate"]
            assert not (cheaper and better)


def test_a_missing_seed_and_other_questions_are_refused(tmp_path):
    write_study(tmp_path, KNOWN)
    folders = tmp_path / "predictions", tmp_path / "files"
    two = SWEEP.model_copy(update={"seed": [0, 1]})
    with pytest.raises(UserError, match=r"seeds of finetune/l2-0\.5-8 only finetune/l2-0\.5-8-0"):
        read_files(*folders, RUNS, FORMATS, two, SETTINGS)


# What a deployer chooses


def speeds(found, decode):
    return {
        "layouts": {
            file["layout"]: {
                "threads": {"1": {"decode_per_s": decode(file), "peak_mb": spread([90])}}
            }
            for file in found["files"].values()
        }
    }


def test_choose_takes_what_fits_best_first(tmp_path):
    found = judged(tmp_path, KNOWN)
    measured = speeds(found, lambda file: spread([5e9 / file["bytes"]] * 5))
    rows = read_rows(found, measured, 1)
    fit = fitting(rows, 70, 50, math.inf)
    students = [f"{loss}/l2-0.5-8/Q4_0" for loss in ("finetune", "distill")]
    assert [row.name for row in fit] == ["teacher/Q4_0", "teacher/Q4_0-pure", *students]
    assert not doubts(fit[0], fit[0], 50)
    assert fitting(rows, 10, 0, math.inf) == []
    assert fitting(read_rows(found, {}, 1), 70, 50, math.inf) == []
    assert "not measured on this machine" in doubts(read_rows(found, {}, 1)[0], fit[0], 0)


def test_noise_is_said_and_not_averaged_away(tmp_path):
    assert spread([100, 110, 105, 102, 101])["noisy"] is False
    noisy = spread([100, 130, 105, 102, 101])
    assert noisy["noisy"] and (noisy["median"], noisy["low"], noisy["high"]) == (102, 100, 130)
    found = judged(tmp_path, KNOWN)
    rows = fitting(read_rows(found, speeds(found, lambda _: noisy), 1), math.inf, 101, math.inf)
    said = doubts(rows[0], rows[0], 101)
    assert "decoding was noisy (100 to 130)" in said
    assert "some repetitions decoded below 101 a second" in said


def test_the_commands_say_what_fits_and_what_does_not(tmp_path, monkeypatch, capsys):
    found = judged(tmp_path, KNOWN)
    metrics, measured = tmp_path / "frontier.json", tmp_path / "machine.json"
    metrics.write_text(json.dumps(found))
    machine = {"machine": {"processor": "A processor"}}
    given = speeds(found, lambda file: spread([5e9 / file["bytes"]] * 5))
    measured.write_text(json.dumps({**machine, **given}))
    files = ("--metrics", metrics, "--measured", measured)
    write_params(tmp_path)
    assert regrow(monkeypatch, tmp_path, "choose", "--max-mb", 70, "--min-decode", 50, *files) == 0
    assert capsys.readouterr().out.startswith("Model: teacher/Q4_0  MB: 60.0  Accuracy, %: 70.0 [")
    assert regrow(monkeypatch, tmp_path, "choose", "--max-mb", 5, *files) == 1
    assert "Nothing fits; the smallest file is" in capsys.readouterr().out
    plots = ("--plots", tmp_path / "plots", "--markdown")
    assert regrow(monkeypatch, tmp_path, "frontier", *files, *plots) == 0
    printed = capsys.readouterr().out
    assert (
        "| KL against CE | accuracy | distill/l2-0.5-8/F32 | finetune/l2-0.5-8/F32 | +20.0 ["
        in printed
    )
    first = [(tmp_path / "plots" / f"frontier.{kind}").read_bytes() for kind in ("png", "svg")]
    assert regrow(monkeypatch, tmp_path, "frontier", *files, *plots) == 0
    assert first == [
        (tmp_path / "plots" / f"frontier.{kind}").read_bytes() for kind in ("png", "svg")
    ]


def test_the_report_has_the_frontier_of_each_machine(tmp_path):
    found = judged(tmp_path, KNOWN)
    table, *_ = on_the_device(Source(tmp_path), found)
    assert isinstance(table, Table) and "not measured" in table.note
    (tmp_path / "results" / "edge").mkdir(parents=True)
    given = {"machine": {"processor": "A"}, **speeds(found, lambda _: spread([7, 9]))}
    (tmp_path / "results" / "edge" / "a.json").write_text(json.dumps(given))
    table, verdicts, *_ = on_the_device(Source(tmp_path), found)
    assert isinstance(table, Table) and isinstance(verdicts, Table)
    assert len(table.rows) == len(found["files"]) and len(verdicts.rows) == len(found["verdicts"])
    assert str(table.rows[0][4]) == "8 (noisy)"
