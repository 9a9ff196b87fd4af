"""docs/extending.md: each diff adds one function to one file, and the study runs with all four."""

import json
import re

import pytest
import yaml

from conftest import ROOT, Study, synthetic_questions, write_jsonl

PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
DIFFS = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("diff", DIFFS, ids=lambda diff: diff.splitlines()[0].rpartition("/")[2])
def test_a_diff_adds_one_function_to_one_file(diff):
    assert len(re.findall(r"^--- ", diff, re.MULTILINE)) == 1
    assert not re.findall(r"^-(?!-- )", diff, re.MULTILINE)
    added = "\n".join(line[1:] for line in diff.splitlines() if re.match(r"\+(?!\+\+ )", line))
    assert len(re.findall(r"^def ", added, re.MULTILINE)) == 1
    assert not re.findall(r"^(?!def |@|    |$)", added, re.MULTILINE)


def test_the_study_runs_with_one_of_each(study: Study, tmp_path):
    for diff in DIFFS:
        (study.root / "one.diff").write_text(diff, "utf-8")
        study.git("apply", "--recount", "one.diff")
    assert len(DIFFS) == len(study.git("diff", "--name-only").splitlines()) == 4

    rows = [
        {"ctx": row["stem"], "endings": (row["choices"] * 4)[:4], "label": str(row["answer"] % 4)}
        for row in synthetic_questions()
    ]
    write_jsonl(tmp_path / "hellaswag.jsonl", rows)
    rates = {"l2": 0.003, "norm": 0.003}
    study.set(
        data__source=f"file:{tmp_path / 'hellaswag.jsonl'}",
        distill__divergence="total_variation",
        distill__learning_rate=rates,
        finetune__learning_rate=rates,
        sweep__score=["l2", "norm"],
        sweep__sparsity=[0.5],
    )
    study.repro()
    questions = (study.root / "data/questions/train.jsonl").read_text("utf-8").splitlines()
    assert all(len(json.loads(line)["choices"]) == 4 for line in questions)
    lock = yaml.safe_load((study.root / "dvc.lock").read_text("utf-8"))["stages"]
    trained = lock["distill@norm-0.5-8-0"]["params"]["params.yaml"]
    assert trained["distill.divergence"] == "total_variation"
    measures = (study.root / "metrics/compare/measures.json").read_text("utf-8")
    assert "gold_probability" in measures and "norm-0.5-8" in measures
    # The report says of each what its docstring says.
    report = ("report", "--results", ".", "--out", "report.html")
    study.run("python", "-m", "regrow", *report, PYTHONPATH="src")
    page = (study.root / "report.html").read_text("utf-8")
    assert "Probability of the gold choice" in page
    assert "norm" in page
