"""Sources on this machine, under DVC: an edited one reruns what reads it, and nothing else runs."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Study, synthetic_questions, write_jsonl

FIRST = ("fetch", "questions", "transfer")


@pytest.fixture
def local(
    new_study: Callable[[Path], Study], model_source: Path, tmp_path: Path
) -> tuple[Study, Path]:
    """A study whose model, questions and transfer set are copies to edit, and their folder."""
    mine = tmp_path / "my own"
    mine.mkdir()
    shutil.copytree(model_source, mine / "model")
    for name in ("questions", "other"):
        write_jsonl(mine / f"{name}.jsonl", synthetic_questions())
    study = new_study(tmp_path)
    study.set(
        model__source=f"file:{mine}/model",
        data__source="file:../my own/questions.jsonl",
        evaluate__transfer={
            "other": {
                **{"source": f"file:{mine}/other.jsonl", "sha256": None},
                **{"columns": None, "questions": 3},
            }
        },
    )
    return study, mine


def ran(study: Study) -> list[str]:
    """The stages that `dvc repro` runs of those that read sources; DVC chooses the order."""
    return sorted(study.repro(*FIRST))


def test_an_edited_source_reruns_the_stage_that_reads_it(local: tuple[Study, Path]) -> None:
    study, mine = local
    assert ran(study) == ["fetch", "questions", "sources", "transfer"]
    assert ran(study) == []
    assert "up to date" in study.dvc("status", *FIRST)

    write_jsonl(mine / "questions.jsonl", synthetic_questions()[4:])
    assert "data/sources" in study.dvc("status", *FIRST)
    assert ran(study) == ["questions", "sources"]
    asked = (study.root / "data/questions/train.jsonl").read_text("utf-8")

    write_jsonl(mine / "other.jsonl", synthetic_questions(41))
    assert ran(study) == ["sources", "transfer"]

    config = mine / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | {"note": 1}), "utf-8")
    assert ran(study) == ["fetch"]
    (mine / "model" / "generation_config.json").write_text("{}", "utf-8")
    assert ran(study) == ["fetch"]

    # Back to what was there: DVC has it.
    write_jsonl(mine / "questions.jsonl", synthetic_questions())
    assert ran(study) == ["sources"]
    assert (study.root / "data/questions/train.jsonl").read_text("utf-8") != asked
    write_jsonl(mine / "questions.jsonl", synthetic_questions()[3:])
    assert ran(study) == ["questions", "sources"]


def test_a_source_is_never_changed_by_dvc(local: tuple[Study, Path]) -> None:
    study, mine = local

    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in mine.rglob("*") if path.is_file()}

    before = contents()
    study.repro(*FIRST)
    study.commit()
    study.repro("--force", *FIRST)
    study.dvc("checkout", "--force", check=False)  # of the stages that have not run
    study.dvc("gc", "--workspace", "--force")
    study.dvc("exp", "run", "--set-param", "data.seed=1", "questions")
    study.dvc("remove", "--outs", "sources")
    assert contents() == before


def test_a_source_that_is_not_there_is_named(local: tuple[Study, Path]) -> None:
    study, mine = local
    other = mine / "other.jsonl"
    kept = other.read_bytes()
    other.unlink()
    assert "regrow sources: evaluate.transfer.other" in study.dvc("repro", *FIRST, check=False)
    other.write_bytes(kept)
    assert ran(study) == ["fetch", "questions", "sources", "transfer"]
    other.unlink()
    said = study.dvc("repro", *FIRST, check=False)
    assert re.search(r"No such file or directory: '.*data/sources/evaluate.transfer/other'", said)
    study.set(evaluate__transfer={})
    assert ran(study) == ["sources", "transfer"]
