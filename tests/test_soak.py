"""Many runs in one process leave nothing behind: memory, files, threads, state."""

import gc
import os
import shutil
import statistics
import tempfile
import threading
from pathlib import Path

import pytest

from regrow.resume import STATES
from test_faults import STAGES, prepared  # noqa: F401  (a fixture)
from tiny_models import regrow

RUNS = 200
WARM = 80
"""Runs after which allocators and caches have what they keep."""

GROWTH = 50_000
"""Bytes a run may add after that: fragments of the allocator, and DVCLive's exit handlers. A leaked
batch of these tiny models would be ten times that, a leaked model twice."""


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_two_hundred_runs_leave_nothing_behind(
    prepared: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "a place")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    with (folder / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("resume: {interval: 0.0}\n")
    memory, files, threads = [], [], []
    stages = list(STAGES.values())
    first: dict[str, bytes] = {}
    for run in range(RUNS):
        shutil.rmtree(folder / "out", ignore_errors=True)
        arguments = stages[run % len(stages)]
        assert regrow(monkeypatch, folder, *arguments) == 0
        written = b"".join(
            path.read_bytes() for path in sorted((folder / "out").rglob("*")) if path.is_file()
        )
        assert first.setdefault(str(arguments[0]), written) == written, f"run {run}"
        gc.collect()
        memory.append(resident())
        files.append(len(list(Path("/proc/self/fd").iterdir())))
        threads.append(threading.active_count())
        assert not (folder / STATES).exists()
        assert not list(temporary.iterdir())
    slope, _ = statistics.linear_regression(range(RUNS - WARM), memory[WARM:])
    print(
        f"{RUNS} runs: memory {memory[0] / 2**20:.1f} MiB after the first, "
        f"{memory[WARM] / 2**20:.1f} after {WARM}, {memory[-1] / 2**20:.1f} at the end, "
        f"{slope:+,.0f} bytes a run from run {WARM} on; open files {files[0]}, {files[WARM]}, "
        f"{files[-1]}; threads {threads[0]}, {threads[WARM]}, {threads[-1]}"
    )
    assert slope < GROWTH
    assert files[-1] <= files[WARM]
    assert threads[-1] <= threads[WARM]
