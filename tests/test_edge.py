"""The device's pipeline under real DVC, beside the study's that never needs it."""

import shutil

import pytest
import yaml

from conftest import ROOT, stages_run
from pipeline import PACKAGE, closure
from regrow.compare.study import run_names
from regrow.support.params import read_params

EDGE = ROOT / "edge"
STAGES = yaml.safe_load((EDGE / "dvc.yaml").read_text("utf-8"))["stages"]
KEPT = (".dvc", "dvc.yaml", "params.yaml")


RUNS = ["teacher", "pruned/l2-0.5", "finetune/l2-0.5-8-0", "distill/l2-0.5-8-0"]


def sweep_of(study):
    return read_params(study.root / "params.yaml").sweep


@pytest.fixture
def edge(study):
    """The reproduced study with the device's pipeline beside it; F16, which tiny widths allow."""
    for name in KEPT:
        source = EDGE / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("cache", "tmp", "config.local")
            shutil.copytree(source, study.root / "edge" / name, ignore=ignored)
        else:
            (study.root / "edge").mkdir(exist_ok=True)
            shutil.copy(source, study.root / "edge" / name)
    study.run("python", "-m", "regrow", "runs", PYTHONPATH="src")
    listed = study.root / "edge" / "runs.yaml"
    assert yaml.safe_load(listed.read_text("utf-8")) == {"runs": run_names(sweep_of(study))}
    listed.write_text(yaml.safe_dump({"runs": RUNS}), encoding="utf-8")
    values = {"formats": ["F16"], "teacher_formats": ["F16-pure"], "embeddings": "F16"}
    path = study.root / "edge" / "params.yaml"
    path.write_text(yaml.safe_dump({**values, "check": 4, "workers": 2}), encoding="utf-8")
    study.commit()
    return study


def repro(edge, *arguments):
    command = 'cd edge && python -m dvc repro "$@"'
    return stages_run(edge.run("sh", "-c", command, "sh", *arguments).stdout)


def outputs(edge):
    return {
        path.relative_to(edge.root).as_posix(): path.read_bytes()
        for folder in ("models", "metrics", "predictions")
        for path in sorted((edge.root / "edge" / folder).rglob("*"))
        if path.is_file()
    }


def test_the_study_never_needs_the_device(edge):
    lock = (edge.root / "dvc.lock").read_bytes()
    assert edge.repro() == []
    assert "up to date" in edge.dvc("status")
    edge.dvc("checkout")
    edge.dvc("exp", "run")
    assert (edge.root / "dvc.lock").read_bytes() == lock
    assert not (edge.root / "edge" / "dvc.lock").exists()


def test_the_pipeline_runs_once_and_to_the_same_bytes(edge):
    ran = repro(edge)
    assert {f"export@{run}" for run in RUNS} | {f"score@{run}-F16" for run in RUNS} <= set(ran)
    assert len(ran) == 2 + 4 * len(RUNS) + 2
    assert repro(edge) == []
    assert "up to date" in edge.dvc("status")
    first = outputs(edge)
    shutil.rmtree(edge.root / "edge" / ".dvc" / "cache")
    again = ["export@teacher", "quantise@teacher-F16", "score@teacher-F16"]
    assert set(repro(edge, "--force", again[-1])) == {"tokens", *again}
    assert outputs(edge) == first


def test_code_among_the_deps_is_the_import_closure():
    for name, stage in STAGES.items():
        words = stage["cmd"].split()
        module = words[words.index("regrow") + 1]
        needed = {path for path in closure(module) if not path.startswith("src/regrow/support/")}
        code = {dep.removeprefix("../") for dep in stage["deps"] if dep.startswith("../src/")}
        covered = {p for p in needed for dep in code if p == dep or p.startswith(f"{dep}/")}
        assert not needed - covered, name
        assert all(any(p == dep or p.startswith(f"{dep}/") for p in needed) for dep in code), name
        assert (PACKAGE / "stages" / f"{module}.py").exists()


def test_the_runs_are_those_of_the_default_study():
    runs = yaml.safe_load((EDGE / "runs.yaml").read_text("utf-8"))["runs"]
    assert runs == run_names(read_params(ROOT / "params.yaml").sweep)
