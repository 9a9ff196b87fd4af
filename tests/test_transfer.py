"""What retraining costs elsewhere: transfer sets among the predictions."""

from dataclasses import replace

import numpy as np
import pytest

from regrow.compare.answers import Answers
from regrow.compare.evidence import gather
from regrow.compare.study import Study
from regrow.compare.transfer import transfer_json, transfer_rows
from simulated import compare_settings, simulated_study, sweep_of

SWEEP = sweep_of((0.1, 0.2), (600,), (0, 1))
SETTINGS = compare_settings()
SETS = {"transfer.a": 30, "transfer.b": 20}


def with_transfer(study: Study) -> dict:
    """The same runs; their last questions stand for other tasks."""
    added = [split for split, size in SETS.items() for _ in range(size)]
    return {
        name: replace(run, splits=[*run.splits[: -len(added)], *added])
        for name, run in study.items()
    }


@pytest.fixture(scope="module")
def study() -> Study:
    return with_transfer(simulated_study(SWEEP, test=150, choices=(2, 3, 4, 5)))


def test_estimates_are_means_over_questions_and_seeds(study: Study) -> None:
    found = transfer_json(study, SWEEP, SETTINGS)
    assert set(found) == {"a", "b", "all sets"}
    assert [found[name]["questions"] for name in found] == [30, 20, 50]
    cell = found["all sets"]["sweep"]["l2-0.2-600"]

    def mean(folder: str, value) -> float:
        return float(
            np.mean(
                [
                    np.concatenate([value(study[name], split) for split in SETS])
                    for name in (f"{folder}/l2-0.2-600-0", f"{folder}/l2-0.2-600-1")
                ]
            )
        )

    def hits(run, split):
        return Answers.of(run.of_split(split), "raw").hits

    def distance(run, split):
        return Answers.of(run.of_split(split), "raw").kl_from(
            Answers.of(study["teacher"].of_split(split), "raw")
        )

    assert cell["accuracy"]["distill"]["estimate"] == pytest.approx(mean("distill", hits), 1e-5)
    assert cell["kl"]["finetune"]["estimate"] == pytest.approx(mean("finetune", distance), 1e-5)
    gap = mean("distill", distance) - mean("finetune", distance)
    assert cell["kl"]["difference"]["estimate"] == pytest.approx(gap, 1e-4)
    changed = cell["accuracy"]["finetune_change"]["estimate"]
    teacher = cell["accuracy"]["teacher"]["estimate"]
    assert changed == pytest.approx(cell["accuracy"]["finetune"]["estimate"] - teacher, abs=1e-5)
    for methods in cell.values():
        for ends in methods.values():
            assert ends["low"] <= ends["estimate"] <= ends["high"]


def test_other_tasks_change_no_number_of_the_study(study: Study) -> None:
    without = {
        name: replace(
            run,
            **{
                part: getattr(run, part)[: -sum(SETS.values())]
                for part in ("ids", "splits", "answers", "log_probs", "tokens", "characters")
            },
        )
        for name, run in study.items()
    }
    one, two = (gather(each, SWEEP, SETTINGS) for each in (study, without))
    for ours, theirs in zip(one.cells, two.cells, strict=True):
        for method, samples in ours.methods.items():
            for measure, sample in samples.items():
                np.testing.assert_array_equal(sample, theirs.methods[method][measure])


def test_no_set_is_nothing_and_one_set_needs_no_sum() -> None:
    plain = simulated_study(SWEEP, test=60)
    assert transfer_json(plain, SWEEP, SETTINGS) == {}
    single = {
        name: replace(run, splits=[s if i else "transfer.one" for i, s in enumerate(run.splits)])
        for name, run in plain.items()
    }
    found = transfer_json(single, SWEEP, SETTINGS)
    assert list(found) == ["one"]
    assert found["one"]["questions"] == 1


def test_rows_hold_every_number(study: Study) -> None:
    found = transfer_json(study, SWEEP, SETTINGS)
    rows = transfer_rows(found, SWEEP)
    assert len(rows) == 3 * 2 * (7 + 4)
    for row in rows:
        cell = found[row["set"]]["sweep"][f"l2-{row['sparsity']}-{row['train_size']}"]
        assert cell[row["measure"]][row["method"]]["estimate"] == row["estimate"]


def test_a_set_named_all_keeps_its_own_numbers(study: Study) -> None:
    named = {
        name: replace(run, splits=[s.replace("transfer.a", "transfer.all") for s in run.splits])
        for name, run in study.items()
    }
    found = transfer_json(named, SWEEP, SETTINGS)
    assert [found[name]["questions"] for name in ("all", "b", "all sets")] == [30, 20, 50]
