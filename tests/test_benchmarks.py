"""The benchmarks: what they count, write and print. How long anything takes is tested nowhere."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmarks import (
    ceilings,
    common,
    contest,
    evaluate,
    page,
    pruned,
    record,
    run,
    startup,
    tokens,
    training,
)
from benchmarks.common import Bench, Files, fitted, reproduced
from benchmarks.contest import Entry, NotMeasuredError, Outcome
from benchmarks.results import Measure, Results, Row, Target, read_results, write_results
from benchmarks.table import as_markdown, as_table, number, write_page
from rich.console import Console

from conftest import PARAMS, ROOT, synthetic_questions
from regrow.model.folders import load_model
from regrow.model.trees import Tree
from regrow.plan import shapes
from regrow.support.environment import has_bfloat16_products
from regrow.support.errors import UserError
from regrow.tasks.questions import Question, read_questions, write_labels, write_questions
from tiny_models import runtime_restored

QUESTIONS = 4
THEIRS = {"lm_eval", "trl"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, model_source: Path) -> Path:
    """What the benchmarks read of a reproduced study, with the tiny model everywhere."""
    root = tmp_path_factory.mktemp("benchmarks") / "a study"
    for model in ("teacher", "pruned/l2-0.25", "pruned/l2-0.5"):
        (root / "models" / model).parent.mkdir(parents=True, exist_ok=True)
        (root / "models" / model).symlink_to(model_source)
    rows = synthetic_questions(16)
    asked = [Question(row["id"], row["stem"], tuple(row["choices"])) for row in rows]
    for kind in ("questions", "labels"):
        (root / "data" / kind).mkdir(parents=True)
    for split, part in (("train", slice(8)), ("test", slice(8, 16))):
        answers = [row["answer"] for row in rows[part]]
        write_questions(root / "data" / "questions" / f"{split}.jsonl", asked[part])
        write_labels(root / "data" / "labels" / f"{split}.jsonl", asked[part], answers)
    params = deepcopy(PARAMS)
    params["model"]["source"] = params["data"]["source"] = "file:nothing"
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return root


@pytest.fixture
def bench(study: Path, tmp_path: Path) -> Bench:
    return Bench(study, reproduced(study), QUESTIONS, 2, tmp_path)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contestants run in this process, one after the other, and those of others do not."""

    def prepared(entry: Entry) -> Any:
        module, _, name = entry.target.partition(":")
        settings = json.loads(json.dumps(dict(entry.settings)))
        return getattr(importlib.import_module(module), name)(settings)

    def contest_here(
        entries: Mapping[str, Entry], repeats: int, variables: Mapping[str, str]
    ) -> dict[str, Outcome]:
        outcomes = {}
        for name, entry in entries.items():
            if name == "theirs":
                outcomes[name] = Outcome(fault="it is not asked here")
                continue
            with runtime_restored():
                facts, once = prepared(entry)
                runs = [once() | {"peak_bytes": 1} for _ in range(repeats)]
            outcomes[name] = Outcome(facts, json.loads(json.dumps(runs)))
        return outcomes

    def once_here(target: str, settings: Mapping[str, Any], _: Mapping[str, str]) -> Any:
        with runtime_restored():
            return prepared(Entry(target, settings))[0]

    monkeypatch.setattr(common, "contest", contest_here)
    monkeypatch.setattr(common, "once", once_here)


# Counting operations


def test_operations_are_those_counted_by_hand(model_source):
    model = load_model(model_source, "float32", "cpu")
    # Two layers of width 16 with 32 neurons; two heads of width 8, one for keys and values.
    query = output = 16 * 16
    key = value = 16 * 8
    neurons = 3 * 16 * 32
    vocabulary = model.config.vocab_size
    counted = shapes.costs(model)
    assert counted.token == 2 * 2 * (query + key + value + output + neurons)
    assert counted.pair == 2 * 2 * (2 * 8 + 2 * 8)
    assert counted.row == 2 * 16 * vocabulary

    tree = Tree((1, 2, 3), ((4,), (5, 6, 7)))
    # The context: 1 + 2 + 3; the second branch's two tokens see it, and 1 and 2 of their own.
    assert shapes.tree_pairs(tree) == 6 + (3 + 1) + (3 + 2)
    assert shapes.tree_pairs(tree) == tree.inputs()[2].sum()
    for positions, rows in (("answer", 3), ("all", 5)):
        assert shapes.trees_forward(counted, [tree, tree], positions) == 2 * (
            5 * counted.token + 15 * counted.pair + rows * counted.row
        )


def test_a_pruned_model_has_fewer_operations(bench, in_process):
    facts, once = pruned.prefill(bench.settings(model=bench.teacher, tiny=True))
    assert facts["neurons"] == {"0": 32, "0.25": 24, "0.5": 16, "0.75": 8}
    dense = facts["operations"]["0"]
    # Two layers, 16 tokens, three matrices of 16 by the 8 neurons that go each time.
    for step, name in enumerate(("0.25", "0.5", "0.75"), start=1):
        assert facts["operations"][name] == dense - step * 2 * 2 * 16 * 3 * 16 * 8
    assert set(once()) == set(facts["neurons"])


def test_longer_questions_are_the_same_with_their_stems_said_again(tmp_path):
    asked = Files(tmp_path / "questions.jsonl", tmp_path / "labels.jsonl", 1)
    asked.questions.write_text(
        '{"id": "q", "stem": "Wo läuft er?", "choices": ["da", "dort"]}\n', encoding="utf-8"
    )
    asked.labels.write_text('{"id": "q", "answer": 1}\n')
    longer = tokens.longer(asked, 3, tmp_path / "longer")
    (question,) = read_questions(longer.questions)
    assert question.stem == "Wo läuft er? Wo läuft er? Wo läuft er?"
    assert (question.id, question.choices) == ("q", ("da", "dort"))
    assert longer.labels.read_bytes() == asked.labels.read_bytes()


# Running


def test_the_runner_writes_what_it_measures(study, tmp_path, in_process, monkeypatch):
    out = tmp_path / "results.json"
    parts = ["ceilings", "evaluate", "training", "record", "pruned"]
    if has_bfloat16_products("cpu"):
        parts.append("precision")
    monkeypatch.setattr(training, "epoch", lambda *_: Row(group="training", name="an epoch"))
    results = run.measure(study, parts, 2, QUESTIONS, out)
    read = json.loads(out.read_text(encoding="utf-8"))
    assert Results.model_validate(read) == results == read_results(out)
    assert str(Path.home()) not in out.read_text(encoding="utf-8")
    assert {row.group for row in results.rows} == set(parts)
    rows = {row.name: row for row in results.rows}
    for name, row in rows.items():
        if name.startswith(("evaluate,", "distill,")):
            assert row.not_measured == "it is not asked here"
        else:
            assert row.not_measured is None, name
        assert row.ours is None or all(value > 0 for value in row.ours.values), name
    assert rows["evaluate, cloze"].ours.unit == "questions/s"
    assert len(rows["evaluate, cloze"].ours.values) == 2
    assert 0 < rows["teacher record: error of the KL"].figure < 1
    kept = rows["teacher record: bytes a question"]
    assert kept.figure == kept.against.median / kept.ours.median

    # Another run of one part keeps the others, if it is of the same machine and settings.
    again = run.measure(study, ["record"], 2, QUESTIONS, out)
    assert [row.name for row in again.rows] == [row.name for row in results.rows]
    with pytest.raises(UserError, match="another machine"):
        run.measure(study, ["record"], 2, QUESTIONS - 1, out)


def test_a_study_that_is_not_there_is_one_sentence(study, tmp_path):
    (tmp_path / "params.yaml").write_text((study / "params.yaml").read_text(encoding="utf-8"))
    with pytest.raises(UserError, match=r"models/teacher.*run `make repro` first"):
        reproduced(tmp_path)


def test_a_contestant_that_fails_drops_out_and_the_others_go_on(bench):
    settings = bench.settings(model=bench.teacher, tiny=True)
    outcomes = bench.contest(
        {
            "ceiling": Entry("benchmarks.ceilings:fastest", settings),
            "missing": Entry("benchmarks.nothing:here", settings),
        }
    )
    assert len(ceilings.ceiling(outcomes["ceiling"]).values) == bench.repeats
    assert outcomes["ceiling"].peak_bytes > 0
    with pytest.raises(NotMeasuredError, match=r"No module named 'benchmarks\.nothing'"):
        outcomes["missing"].series("rate")


def test_a_stage_is_watched(bench):
    folder = bench.scratch / "predictions"
    settings = {"folder": str(folder), "test": 8, "calibration": 4}
    sweep = bench.params.sweep.model_dump(mode="json")
    importlib.import_module("benchmarks.growth").simulate({**settings, "sweep": sweep})
    command = startup.stages.compare(bench, folder)
    read = "regrow.evaluate.predictions:read_predictions"
    stopped = bench.stage(*command, first=f"{read}!")
    assert stopped.first is not None
    assert not (bench.scratch / "compared" / "summary.json").exists()
    whole = bench.stage(*command, first=read, watch=True)
    assert whole.first is not None and whole.peak_bytes > whole.own_bytes > 0
    assert (bench.scratch / "compared" / "summary.json").exists()
    with pytest.raises(NotMeasuredError, match="the stage compare failed"):
        bench.stage("compare", "--nonsense")


def test_choices_and_log_probabilities_are_compared():
    ours = {"log_probs": [[-1.0, -2.0], [-4.0, -3.0]], "characters": [[1, 4], [1, 1]]}
    theirs = {"log_probs": [[-1.0, -2.5], [-2.0, -3.0]]}
    assert evaluate.agreement(ours, theirs) == {
        "equal_choices": 1,
        "equal_choices_per_character": 1,
        "largest_difference_of_log_probabilities": 2.0,
    }


def test_a_line_is_fitted():
    assert fitted([1, 2, 4], [12, 14, 18]) == (pytest.approx(10), pytest.approx(2))


@pytest.mark.slow
def test_all_parts_run(study, tmp_path):
    out = tmp_path / "results.json"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.run",
            "--questions",
            str(QUESTIONS),
            "--repeats",
            "1",
            "--out",
            out,
        ],
        cwd=study,
        env=contest.environment(1, tmp_path),
        check=True,
    )
    for row in read_results(out).rows:
        if row.not_measured is not None:
            assert row.name.startswith(("evaluate, ", "distill, ", "no-op dvc repro")), row


# The table


def rate(*values: float, what: str = "regrow") -> Measure:
    return Measure(what=what, unit="questions/s", values=list(values))


ROWS = [
    Row(
        group="evaluate",
        name="evaluate, cloze",
        ours=rate(30.0, 29.0, 33.0).model_copy(update={"of_ceiling": 0.75}),
        against=rate(5.0, 6.0, 5.0, what="another tool"),
        ratio="ours / against",
        target=Target.least(5, ">= 5x"),
        notes={"equal_choices": 200, "accuracies_equal": True, "batch_sizes_tried": [1, 2]},
    ),
    Row(
        group="evaluate",
        name="evaluate, letters",
        ours=rate(20.0),
        target=Target.least(1.3, ">= 1.3x"),
        not_measured="No module named 'lm_eval'",
    ),
    Row(
        group="startup",
        name="start",
        ours=Measure(what="regrow", unit="s", values=[6.0]),
        target=Target.most(5, "<= 5 s"),
    ),
    Row(
        group="record",
        name="bytes",
        ours=Measure(what="regrow", unit="bytes/question", values=[24_639]),
        against=Measure(what="whole", unit="bytes/question", values=[4_649_448]),
        ratio="against / ours",
        target=Target.least(50, ">= 50x smaller"),
    ),
]
RESULTS = Results(
    machine={
        "processor": "A processor",
        "cores": 2,
        "memory_gib": 8.0,
        "system": "Linux x86_64",
        "load_at_start": 0.1,
    },
    versions={"python": "3.11.0", "torch": "2.13.0"},
    settings={"questions": 200, "repeats": 3, "threads": 2, "device": "cpu", "dtype": "float32"},
    rows=ROWS,
)


def test_figures_are_ratios_of_medians_with_the_rounds_spread():
    cloze, letters, start, size = ROWS
    assert (cloze.figure, cloze.met) == (6.0, True)
    assert cloze.spread == (29 / 6, 33 / 5)
    assert (letters.figure, letters.met) == (None, None)
    assert (start.figure, start.met) == (6.0, False)
    assert size.figure == pytest.approx(188.7, abs=0.1) and size.met


def test_the_table_in_markdown():
    lines = as_markdown(RESULTS).splitlines()
    assert lines[0].startswith("A processor, 2 cores, 8.0 GiB, Linux x86_64")
    assert lines[4:8] == [
        "| evaluate, cloze | 30.0 [29.0, 33.0] questions/s (75% of the ceiling) "
        "| another tool: 5.00 [5.00, 6.00] questions/s | 6.00x [4.83, 6.60] | >= 5x | met |",
        "| evaluate, letters | 20.0 questions/s |  |  | >= 1.3x "
        "| not measured: No module named 'lm_eval' |",
        "| start | 6.00 s |  |  | <= 5 s | missed |",
        "| bytes | 24,639 bytes/question | whole: 4,649,448 bytes/question | 189x "
        "| >= 50x smaller | met |",
    ]
    assert lines[-1] == (
        "- evaluate, cloze: equal choices: 200; accuracies equal: yes; batch sizes tried: 1, 2."
    )


def test_the_table_on_the_terminal():
    console = Console(width=200, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(as_table(RESULTS))
    for text in ("evaluate, cloze", "6.00x [4.83, 6.60]", "missed", "not measured"):
        assert text in capture.get()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0001234, "0.000123"),
        (0.00001234, "1.2e-05"),
        (0.5, "0.500"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,300"),
    ],
)
def test_numbers_keep_three_digits(value, text):
    assert number(value) == text


def test_the_page_is_made_and_its_table_replaced(tmp_path):
    path = tmp_path / "performance.md"
    write_page(path, RESULTS)
    first = path.read_text(encoding="utf-8")
    assert as_markdown(RESULTS) in first and first.startswith("# Performance\n")
    path.write_text(first.replace("# Performance", "# My own words"), encoding="utf-8")
    write_page(path, RESULTS.model_copy(update={"rows": ROWS[2:]}))
    second = path.read_text(encoding="utf-8")
    assert second.startswith("# My own words") and second.count(page.BEGIN) == 1
    assert "cloze |" not in second and "| bytes |" in second
    path.write_text("# Nothing", encoding="utf-8")
    with pytest.raises(UserError, match="holds no lines"):
        write_page(path, RESULTS)


def test_results_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, RESULTS)
    assert read_results(path) == RESULTS
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="run `make bench`"):
        read_results(path)


# Beside the rest of the project


def test_make_repro_never_installs_what_only_the_benchmarks_need():
    def names(path: Path) -> set[str]:
        lines = path.read_text(encoding="utf-8").splitlines()
        return {line.partition("==")[0] for line in lines if line and not line.startswith("#")}

    own = names(ROOT / "benchmarks" / "constraints.txt")
    assert {name.replace("_", "-") for name in THEIRS} <= own
    assert not own & names(ROOT / "constraints.txt")


def test_the_parts_are_all_there():
    parts: dict[str, Callable[..., Any]] = run.GROUPS
    assert parts["record"] is record.rows
    for name in parts:
        assert (ROOT / "benchmarks" / f"{name}.py").is_file()
