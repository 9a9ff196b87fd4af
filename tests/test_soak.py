"""Many runs in one process leave nothing behind: memory, files, threads, state."""

import ctypes
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
"""Bytes in use that a run may add after that. tokenizers keeps some 25 KB of each tokenizer that
has encoded a text (a loop of `load_tokenizer` and `build_trees` alone shows it), and DVCLive its
exit handlers. A leaked batch of these tiny models would be ten times that, a leaked model twice."""

SPREAD = 1.02
"""What the process's whole memory may grow to: with fragments, and other threads' arenas."""


class Mallinfo2(ctypes.Structure):
    """What glibc says of the memory it gave out, in bytes."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def in_use() -> int:
    """Bytes that were asked for and not given back, in glibc's main arena."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Mallinfo2
    found = ask()
    return int(found.uordblks + found.hblkhd)


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
    used, memory, files, threads = [], [], [], []
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
        used.append(in_use())
        memory.append(resident())
        files.append(len(list(Path("/proc/self/fd").iterdir())))
        threads.append(threading.active_count())
        assert not (folder / STATES).exists()
        assert not list(temporary.iterdir())
    slope, _ = statistics.linear_regression(range(RUNS - WARM), used[WARM:])
    print(
        f"{RUNS} runs: memory {memory[0] / 2**20:.1f} MiB after the first, "
        f"{memory[WARM] / 2**20:.1f} after {WARM}, {memory[-1] / 2**20:.1f} at the end, "
        f"{slope:+,.0f} bytes in use a run from run {WARM} on; "
        f"open files {files[0]}, {files[WARM]}, {files[-1]}; "
        f"threads {threads[0]}, {threads[WARM]}, {threads[-1]}"
    )
    assert slope < GROWTH
    assert memory[-1] < SPREAD * memory[WARM]
    assert files[-1] <= files[WARM]
    assert threads[-1] <= threads[WARM]
