"""The pipeline under real DVC, on a tiny random model: what reruns, what is equal, what fails."""

import csv
import json
import shutil
import sys
import time
from typing import Any

import pytest
import yaml

from conftest import FOLDER, PLANTED, Study, stages_run, synthetic_questions, write_jsonl

PRUNED = ("l2-0.25", "l2-0.5")
RUNS = tuple(f"{run}-8-0" for run in PRUNED)


def named(stage: str, *items: str) -> set[str]:
    return {f"{stage}@{item}" for item in items}


def evaluated(loss: str, *items: str) -> set[str]:
    return named("evaluate", *(f"{loss}-{item}" for item in items))


def new_runs(*items: str) -> set[str]:
    runs = [f(loss, *items) for f in (named, evaluated) for loss in ("finetune", "distill")]
    return JUDGE.union(*runs)


JUDGE = {"compare"}
PRUNE, EVALUATE_PRUNED = (named(stage, *PRUNED) for stage in ("prune", "evaluate_pruned"))
FINETUNE, DISTILL = (named(loss, *RUNS) for loss in ("finetune", "distill"))
CE, KL = FINETUNE | evaluated("finetune", *RUNS), DISTILL | evaluated("distill", *RUNS)
EVALUATE = {"evaluate_teacher"} | EVALUATE_PRUNED | CE - FINETUNE | KL - DISTILL
FROM_PRUNE = PRUNE | EVALUATE_PRUNED | CE | KL | JUDGE | {"importance"}
TRANSFERRED = {"sources", "transfer"} | EVALUATE | JUDGE
FROM_TEACHER = {"teacher", "teacher_logits", "evaluate_teacher"} | FROM_PRUNE
ALL = {"sources", "fetch", "questions", "transfer"} | FROM_TEACHER


def test_a_whole_run_writes_no_secret_of_its_environment(study) -> None:
    printed = study.dvc("repro", "--force")
    assert set(stages_run(printed)) == ALL
    found = [path for path in study.root.rglob("*") if path.is_file()]
    for secret in PLANTED.values():
        assert secret not in printed
        assert not [path for path in found if secret.encode() in path.read_bytes()]


# What reruns


def row(change: dict[str, Any], reruns: set[str], *marks: pytest.MarkDecorator) -> Any:
    name = " ".join(f"{key.replace('__', '.')}={value}" for key, value in change.items())
    return pytest.param(change, reruns, id=name, marks=marks)


slow = pytest.mark.slow

PARAMETERS = [
    row({"data__test": 9}, {"questions"} | JUDGE | EVALUATE),
    row({"teacher__learning_rate": 0.004}, FROM_TEACHER, slow),
    row({"teacher_logits__positions": "all"}, {"teacher_logits"} | JUDGE | KL),
    row({"prune__multiple_of": 8}, PRUNE | {"importance"}),
    row({"training__epochs": 2}, CE | KL | JUDGE, slow),
    row({"finetune__learning_rate": {"l2": 0.004}}, CE | JUDGE),
    row({"finetune__learning_rate": {"l2": 0.003, "random": 0.1}}, set()),
    row({"finetune__positions": "all"}, CE | JUDGE, slow),
    row({"finetune__labels": "teacher_choices"}, CE | JUDGE),
    row({"distill__temperature": 2.0}, KL | JUDGE),
    row(
        {"sweep__sparsity": [0.25, 0.5, 0.75]},
        {"importance"}
        | named("prune", "l2-0.75")
        | named("evaluate_pruned", "l2-0.75")
        | new_runs("l2-0.75-8-0"),
    ),
    row({"sweep__sparsity": [0.25]}, {"importance"} | JUDGE),
    row({"sweep__train_size": [8, 4]}, new_runs("l2-0.25-4-0", "l2-0.5-4-0"), slow),
    row({"sweep__seed": [0, 1]}, new_runs("l2-0.25-8-1", "l2-0.5-8-1")),
    row({"compare__resamples": 300}, JUDGE),
    row({"compare__accuracy": "raw"}, JUDGE, slow),
]


@pytest.mark.parametrize(("change", "reruns"), PARAMETERS)
def test_a_changed_parameter_reruns_exactly(study, change, reruns):
    study.set(**change)
    assert set(study.repro()) == reruns
    assert study.repro() == []


def cells_drawn(study: Study) -> set[tuple[str, str]]:
    with (study.root / "plots/compare/accuracy.csv").open(encoding="utf-8", newline="") as file:
        return {(row["score"], row["sparsity"]) for row in csv.DictReader(file)}


def test_scores_are_an_axis_of_the_sweep(study):
    rates = {"l2": 0.003, "random": 0.002}
    study.set(
        sweep__score=["l2", "random"],
        finetune__learning_rate=rates,
        distill__learning_rate=rates,
    )
    pruned = ("random-0.25", "random-0.5")
    assert set(study.repro()) == (
        named("prune", *pruned)
        | named("evaluate_pruned", *pruned)
        | new_runs(*(f"{run}-8-0" for run in pruned))
        | {"importance"}
    )
    assert cells_drawn(study) == {
        (score, sparsity) for score in ("l2", "random") for sparsity in ("0.25", "0.5")
    }


# The code. A comment changes what a stage depends on, but not what it writes: nothing follows.

EDITS = [  # HOUSE.md's table: how many of the study's 21 stages one line puts out of date
    ("support/schema.py", set()),
    ("support/errors.py", set()),
    ("support/files.py", set()),
    ("commands/show.py", set()),
    ("report/page.py", set()),
    ("sources/layouts.py", {"questions", "transfer"}),
    ("prune/scores.py", PRUNE | {"importance"}),
    ("distill/divergence.py", DISTILL),
    ("distill/reader.py", DISTILL),
    ("compare/measures.py", JUDGE),
    ("compare/bootstrap.py", JUDGE),
    ("plot/style.py", {"importance"} | JUDGE),
    ("retrain/cross_entropy.py", {"teacher"} | FINETUNE),
    ("stages/evaluate.py", EVALUATE),
]


def out_of_date(study: Study) -> set[str]:
    return {stage for stage in json.loads(study.dvc("status", "--json")) if stage in ALL}


def test_a_line_of_code_puts_out_of_date_exactly(study):
    assert len(ALL) == 21
    assert out_of_date(study) == set()
    for file, stages in EDITS:
        path = study.root / "src" / "regrow" / file
        before = path.read_bytes()
        path.write_bytes(before + b"\n# A comment.\n")
        assert out_of_date(study) == stages, file
        path.write_bytes(before)


def test_a_parameter_added_to_the_schema_puts_nothing_out_of_date(study):
    schema = study.root / "src/regrow/support/schema.py"
    added = schema.read_text("utf-8").replace(
        "    divergence: Divergence\n", "    divergence: Divergence\n    sharpness: float\n"
    )
    schema.write_text(added, "utf-8")
    study.set(distill__sharpness=1.0)
    assert study.run("python", "-m", "regrow", "check", PYTHONPATH="src").returncode == 0
    assert out_of_date(study) == set()


@pytest.mark.parametrize(
    ("file", "reruns"),
    [
        ("plot/style.py", {"importance"} | JUDGE),
        pytest.param("prune/scores.py", PRUNE | {"importance"}, marks=slow),
    ],
)
def test_a_comment_in_the_code_changes_no_result(study, file, reruns):
    with (study.root / "src" / "regrow" / file).open("a", encoding="utf-8") as code:
        code.write("\n# A comment.\n")
    assert set(study.repro()) == reruns
    assert not study.git("status", "--porcelain", "--", "metrics", "plots")


def test_another_tasks_set_is_scored_by_every_model(study, tmp_path):
    path = tmp_path / "of others.jsonl"
    write_jsonl(
        path,
        [
            {"ask": row["stem"], "options": row["choices"], "key": row["answer"]}
            for row in synthetic_questions()
        ],
    )
    columns = {"id": None, "stem": "ask", "choices": "options", "answer": "key"}
    wanted = {"source": f"file:{path}", "sha256": None, "columns": columns, "questions": 5}
    study.set(evaluate__transfer={"elsewhere": wanted})
    assert set(study.repro()) == TRANSFERRED
    metrics = sorted((study.root / "metrics" / "evaluate").rglob("*.json"))
    assert len(metrics) == len(EVALUATE)
    for path in metrics:
        assert json.loads(path.read_text("utf-8"))["transfer.elsewhere.questions"] == 5
    study.set(evaluate__transfer={})
    study.repro()
    assert not study.git("status", "--porcelain", "--", "metrics", "plots")


def test_a_smaller_sweep_leaves_what_the_larger_one_made(study):
    before = study.outputs()
    study.set(sweep__sparsity=[0.25])
    study.repro()
    assert cells_drawn(study) == {("l2", "0.25")}
    predictions = {path for path in before if path.startswith("data/predictions/")}
    assert predictions <= study.outputs().keys()
    study.set(sweep__sparsity=[0.25, 0.5])
    assert set(study.repro()) <= {"importance"} | JUDGE
    assert study.outputs() == before


# Labels


@pytest.fixture(scope="module")
def unlabelled(reproduced: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = reproduced.copy(tmp_path_factory.mktemp("unlabelled"))
    study.set(teacher__finetune=False)
    assert set(study.repro()) == FROM_TEACHER
    study.commit()
    return study


def test_without_a_finetuned_teacher_permuted_labels_rerun_finetune_and_what_follows(
    unlabelled, tmp_path
):
    study = unlabelled.copy(tmp_path / "study")
    before = study.outputs()
    train = study.root / "data" / "questions" / "train.jsonl"
    names = {json.loads(line)["id"] for line in train.read_text("utf-8").splitlines()}
    rows = synthetic_questions()
    for row in rows:
        if row["id"] in names:
            row["answer"] = (row["answer"] + 1) % len(row["choices"])
    permuted = tmp_path / "permuted.jsonl"
    write_jsonl(permuted, rows)
    study.set(data__source=f"file:{permuted}")
    assert set(study.repro()) == {"sources", "questions"} | JUDGE | CE
    after = study.outputs()
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert any(path.startswith("models/finetune/") for path in changed)
    retrained = ("models/", "data/predictions/", "metrics/evaluate/", "plots/training/")
    seen = ("data/labels/", "data/sources/", *(f"{folder}finetune/" for folder in retrained))
    judged = ("metrics/compare/", "metrics/summary.json", "plots/compare/")
    assert all(path.startswith((*seen, *judged)) for path in changed), changed


def test_labels_that_are_gone_stop_no_stage_of_distillation(study):
    labels = study.root / "data" / "labels"
    for name in ("train", "calibration", "test", "teacher-true", "distill-gold"):
        (labels / f"{name}.jsonl").unlink()
    for name in ("prune", "teacher_logits", "distill"):
        ran = stages_run(study.dvc("repro", "--single-item", "--force", "--glob", f"{name}*"))
        assert ran and all(stage.startswith(name) for stage in ran)


# The same study twice


def test_a_clone_reproduces_every_byte(reproduced, tmp_path):
    clone = Study(tmp_path / FOLDER, reproduced.environment)
    reproduced.git("clone", "--quiet", ".", str(clone.root))
    for folder in ("metrics", "plots"):
        shutil.rmtree(clone.root / folder)
    assert set(clone.repro()) == ALL - {"sources"}  # what it writes is in git
    assert clone.git("status", "--porcelain") == ""
    assert clone.outputs() == reproduced.outputs()


def test_a_checkpoint_takes_its_room_once(reproduced):
    for path in (reproduced.root / "models").rglob("*.safetensors"):
        assert path.stat().st_nlink > 1, path
        assert not path.stat().st_mode & 0o222, path


# Experiments, plots and remotes


def test_a_smaller_sweep_is_an_experiment(study):
    printed = study.dvc("exp", "run", "--name", "smaller", "--set-param", "sweep.sparsity=[0.25]")
    assert set(stages_run(printed)) == {"importance"} | JUDGE


def test_queued_experiments_run_with_the_code_of_their_time(study, tmp_path):
    # DVC 3.67's queue cannot write the cache's path where it holds a letter outside ASCII;
    # docs/dvc.md says to put the cache elsewhere then.
    shutil.copytree(study.root / ".dvc" / "cache", tmp_path / "cache")
    study.dvc("config", "--local", "cache.dir", str(tmp_path / "cache"))
    study.dvc("exp", "run", "--queue", "--set-param", "compare.resamples=300,400")
    stage = study.root / "src" / "regrow" / "stages" / "compare.py"
    stage.write_text("raise SystemExit('this is not the code that was queued')\n", "utf-8")
    study.dvc("queue", "start")
    deadline = time.monotonic() + 600
    while "Queued" in (status := study.dvc("queue", "status")) or "Running" in status:
        assert time.monotonic() < deadline, status
        time.sleep(1)
    assert status.count("Success") == 2, status
    shown = json.loads(study.dvc("exp", "show", "--json"))
    resamples = {
        experiment["revs"][0]["data"]["params"]["params.yaml"]["data"]["compare"]["resamples"]
        for base in shown
        for experiment in base["experiments"] or []
    }
    assert resamples == {300, 400}


def test_a_clone_pulls_the_checkpoints_from_a_folder(study, tmp_path):
    # Named from here: DVC writes no letter outside ASCII to its configuration.
    study.dvc("remote", "add", "--local", "--default", "folder", "../a remote")
    study.dvc("push")
    clone = Study(tmp_path / "second" / FOLDER, study.environment)
    study.git("clone", "--quiet", ".", str(clone.root))
    clone.dvc("remote", "add", "--local", "--default", "folder", "../../a remote")
    clone.dvc("pull")
    assert clone.repro() == []
    assert clone.outputs() == study.outputs()


# Bad parameters

FAULTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"distill__temprature": 2.0}, ["distill.temprature", "misspelt", "temperature"]),
    ({"sweeps": {}}, ["sweeps", "misspelt", "sweep"]),
    ({"sweep__sparsity": [0.25, 1.0]}, ["sweep.sparsity", "less than 1", "1.0"]),
    ({"sweep__sparsity": [-0.1]}, ["sweep.sparsity", "greater than 0", "-0.1"]),
    ({"sweep__train_size": [8, 13]}, ["sweep.train_size", "13", "data.train", "12"]),
    ({"sweep__sparsity": []}, ["sweep.sparsity", "at least 1"]),
    ({"sweep__train_size": []}, ["sweep.train_size", "at least 1"]),
    ({"sweep__seed": []}, ["sweep.seed", "at least 1"]),
    ({"sweep__score": ["l1"]}, ["sweep.score", "l1", "l2"]),
    ({"data__seed": "zero"}, ["data.seed", "zero"]),
]
FAULT_NAMES = [f"{key}={value}" for change, _ in FAULTS for key, value in change.items()]


@pytest.mark.parametrize(("change", "words"), FAULTS, ids=FAULT_NAMES)
def test_a_fault_in_the_parameters_is_one_sentence(new_study, tmp_path, change, words):
    study = new_study(tmp_path)
    study.set(**change)
    done = study.run("python", "-m", "regrow", "check", check=False, PYTHONPATH="src")
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1, done.stdout
    for word in words:
        assert word in done.stdout


@pytest.mark.parametrize("change", [{"sweep__sparsity": []}, {"sweep__sparsity": [1.0]}])
def test_a_fault_stops_dvc_before_anything_is_written(new_study, tmp_path, change):
    study = new_study(tmp_path)
    study.set(**change)
    done = study.run(sys.executable, "-m", "dvc", "repro", check=False)
    assert done.returncode != 0
    assert "params.yaml: sweep.sparsity" in done.stdout
    assert "Traceback" not in done.stdout
    for folder in ("models", "data"):
        written = [path for path in (study.root / folder).rglob("*") if path.is_file()]
        assert not [path for path in written if path.name != "README.md"]


@pytest.mark.parametrize("change", [{"distill__temperature": -1.0}, {"sweep__sparsity": []}])
def test_a_fault_loses_no_result(study, change):
    before, values = study.outputs(), (study.root / "params.yaml").read_bytes()
    study.set(**change)
    assert study.run(sys.executable, "-m", "dvc", "repro", check=False).returncode != 0
    (study.root / "params.yaml").write_bytes(values)
    # What reads the sweep may run again; nothing is trained or scored again.
    assert set(study.repro()) <= {"importance"} | JUDGE
    assert study.outputs() == before


def test_a_number_as_dvc_writes_it_is_a_number(new_study, tmp_path):
    # DVC writes 0.00001 as 1e-05, which is a number in YAML 1.2 and text in YAML 1.1.
    study = new_study(tmp_path)
    path = study.root / "params.yaml"
    path.write_text(path.read_text("utf-8").replace("0.003", "1e-05"), "utf-8")
    done = study.run("python", "-m", "regrow", "check", check=False, PYTHONPATH="src")
    assert done.returncode == 0, done.stdout


# make


@pytest.fixture
def installed(study: Study) -> Study:
    """A study with something in the place of .venv, as `make repro` leaves it."""
    programs = study.root / ".venv" / "bin"
    programs.mkdir(parents=True)
    shutil.copy(shutil.which("python", path=study.environment["PATH"]) or "", programs / "python")
    for name in ("constraints.txt", "pyproject.toml"):
        (study.root / name).write_text(f"{name}\n", "utf-8")
    (study.root / ".venv" / "installed").write_text("constraints.txt\npyproject.toml\n", "utf-8")
    (study.root / "studies").mkdir()
    shutil.copy(study.root / "params.yaml", study.root / "studies" / "tiny.yaml")
    other = study.params
    other["compare"]["resamples"] = 300
    (study.root / "studies" / "coarse.yaml").write_text(yaml.safe_dump(other), "utf-8")
    study.run("python", "-m", "regrow", "doctor", "--record", "environment.json", PYTHONPATH="src")
    study.commit()
    return study


def make(study: Study, *arguments: str) -> tuple[int, str]:
    done = study.run("make", *arguments, check=False)
    return done.returncode, done.stdout


def test_make_repro_prints_the_table_and_does_nothing_twice(installed):
    status, printed = make(installed, "repro")
    assert status == 0, printed
    assert stages_run(printed) == []
    assert "plots/compare/accuracy" in printed
    assert installed.git("status", "--porcelain") == ""


def test_make_repro_takes_a_study(installed):
    status, printed = make(installed, "repro", "STUDY=coarse")
    assert status == 0, printed
    assert stages_run(printed) == ["compare"]
    assert installed.params["compare"]["resamples"] == 300
    # params.yaml differs from what is committed now, but it is a study, so it may go.
    status, printed = make(installed, "repro", "STUDY=tiny")
    assert status == 0, printed
    assert installed.git("status", "--porcelain") == ""


def test_make_repro_overwrites_no_edits(installed):
    installed.set(compare__resamples=301)
    edited = (installed.root / "params.yaml").read_bytes()
    status, printed = make(installed, "repro", "STUDY=coarse")
    assert status != 0
    assert "params.yaml holds edits" in printed
    assert (installed.root / "params.yaml").read_bytes() == edited
    installed.commit()
    status, printed = make(installed, "study", "STUDY=coarse")
    assert status == 0, printed
    assert installed.params["compare"]["resamples"] == 300


def test_make_repro_names_the_studies(installed):
    status, printed = make(installed, "repro", "STUDY=course")
    assert status != 0
    assert "there is no studies/course.yaml; choose one of coarse tiny" in printed


def test_make_repro_checks_the_parameters_first(installed):
    # No stage reads this key, so that DVC alone would find nothing to do.
    installed.set(compare__resample=300)
    status, printed = make(installed, "repro")
    assert status != 0
    assert "compare.resample is not a parameter" in printed
    assert stages_run(printed) == []
