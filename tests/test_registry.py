"""What others get of a repository: models as artifacts, folders that say what lies in them."""

import sys
from pathlib import Path

import pytest

from conftest import Study


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("artifact", ["teacher", "distill"])
def test_a_registered_artifact_is_got_from_another_folder(study: Study, tmp_path, artifact):
    gto = (sys.executable, "-c", "from gto.cli import app; app()")
    study.run(*gto, "register", artifact)
    assert artifact in study.run(*gto, "show").stdout
    elsewhere = Study(tmp_path / "elsewhere", study.environment)
    elsewhere.root.mkdir()
    elsewhere.dvc("artifacts", "get", str(study.root), artifact, "--out", "got")
    assert files(elsewhere.root / "got") == files(study.root / "models" / artifact)


def test_dvc_writes_no_gitignore_of_its_own(study: Study):
    # One in data/predictions would be part of what `compare` depends on.
    written = [path for name in ("data", "models") for path in (study.root / name).rglob(".git*")]
    assert not written


def test_a_clone_has_the_folders_that_results_lie_in(study: Study, tmp_path):
    study.git("clone", "--quiet", ".", str(tmp_path / "clone"))
    for name in ("data", "models"):
        assert (tmp_path / "clone" / name / "README.md").is_file()
    assert not list((tmp_path / "clone").rglob("*.safetensors"))
