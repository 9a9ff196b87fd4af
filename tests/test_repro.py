"""Stages side by side, under real DVC: the same bytes, whatever happens on the way."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import PARAMS, Study
from regrow.commands.repro import devices
from regrow.support.errors import UserError
from regrow.support.schema import Compute

COMMAND = (sys.executable, "-m", "regrow", "repro", "--jobs", "3")


def test_side_by_side_gives_the_same_bytes_and_the_same_lock(new_study, reproduced, tmp_path):
    study = new_study(tmp_path)
    printed = study.run(*COMMAND, PYTHONPATH="src").stdout
    assert study.outputs() == reproduced.outputs()
    for name in ("dvc.lock", "params.yaml"):
        assert (study.root / name).read_bytes() == (reproduced.root / name).read_bytes()
    assert study.repro() == []
    # Not at the start of a line alone, for another stage's bar may stand before it.
    ran = re.findall(r"Running stage '([^']+)'", printed)
    assert len(ran) == len(set(ran)) == len(study.dvc("stage", "list", "--name-only").split())


@pytest.mark.slow
def test_a_part_of_the_stages_side_by_side(study, reproduced, tmp_path):
    # Nothing is begun where nothing changed.
    assert "Running stage" not in study.run(*COMMAND, PYTHONPATH="src").stdout
    study.set(distill__temperature=2.0)
    study.run(*COMMAND, PYTHONPATH="src")
    alone = reproduced.copy(tmp_path / "alone")
    alone.set(distill__temperature=2.0)
    alone.repro()
    # The entries that dvc.lock had keep their places.
    assert (study.root / "dvc.lock").read_bytes() == (alone.root / "dvc.lock").read_bytes()
    assert study.outputs() == alone.outputs()


def test_a_failure_is_passed_on_and_begins_nothing_new(study):
    stage = study.root / "src" / "regrow" / "stages" / "prune.py"
    stage.write_text("raise SystemExit('no pruning today')\n", encoding="utf-8")
    study.set(prune__seed=1)
    done = study.run(*COMMAND, check=False, PYTHONPATH="src")
    assert done.returncode == 1
    assert "no pruning today" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert re.match(r"regrow repro: prune@l2-0\.\S+ .*failed, for what is said above", last)
    assert "finetune" not in "".join(re.findall(r"Running stage '[^']+'", done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interruption_leaves_what_dvc_goes_on_from(new_study, reproduced, tmp_path, number):
    study = new_study(tmp_path)
    # The python that runs the stages, for what ends a preloaded one's client leaves the stage be.
    plain = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    begun = subprocess.Popen(
        COMMAND,
        cwd=study.root,
        env=study.environment | plain | {"PYTHONPATH": "src"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_stages(study, 3, begun)
    killed = stopped_tree(begun.pid) if number == signal.SIGKILL else []
    for process in killed:
        with suppress(ProcessLookupError):
            os.kill(process, number)
    if not killed:
        begun.send_signal(number)
    begun.communicate(timeout=60)
    # DVC waits for no lock whose process the system still lists.
    until = time.monotonic() + 60
    while any(Path(f"/proc/{process}").exists() for process in killed):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert begun.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert set(study.repro()) < {*study.dvc("stage", "list", "--name-only").split()}
    assert study.outputs() == reproduced.outputs()


def wait_for_stages(study: Study, wanted: int, begun: subprocess.Popen) -> None:
    """Wait until dvc.lock holds so many stages."""
    lock = study.root / "dvc.lock"
    deadline = time.monotonic() + 120
    while not lock.exists() or lock.read_text("utf-8").count("cmd: ") < wanted:
        assert begun.poll() is None, begun.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stopped_tree(process: int) -> list[int]:
    """A process and all that descends from it, stopped, for else one may start another unseen."""
    try:
        os.kill(process, signal.SIGSTOP)
        threads = list(Path(f"/proc/{process}/task").iterdir())
        found = [child for one in threads for child in (one / "children").read_text().split()]
    except OSError:  # it has ended
        return []
    return [process, *(each for child in found for each in stopped_tree(int(child)))]


def test_every_job_gets_gpus_of_its_own(monkeypatch):
    def gpus(named: str, jobs: int | None, **changes):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        given = devices(Compute(**PARAMS["compute"] | {"device": "cuda"} | changes), jobs)
        return [found.get("CUDA_VISIBLE_DEVICES") for found in given]

    assert gpus("0,1,2,3", 3) == ["0", "1", "2"]
    assert gpus("4,5,6,7", 8, processes=2) == ["4,5", "6,7"]
    assert gpus("4,5,6,7", None) == ["4", "5", "6", "7"]
    assert gpus("0", 2) == [None, None]
    assert gpus("0", None) == [None]
    with pytest.raises(UserError, match=r"compute\.processes is 4, but 2 GPUs"):
        gpus("0,1", 1, processes=4)
    assert devices(Compute(**PARAMS["compute"]), None) == [{}, {}]
