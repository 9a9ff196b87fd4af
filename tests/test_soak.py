"""Many runs in one process leave nothing behind: memory, files, threads, state."""

import ctypes
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from regrow.support.resume import STATES
from test_faults import STAGES, prepared  # noqa: F401  (a fixture)
from tiny_models import regrow

RUNS = 200
WARM = 80
"""Runs after which allocators and caches have what they keep."""

GROWTH = 50_000
"""Bytes a run may add after that, to what is in use and to the whole process. tokenizers keeps some
25 KB of each tokenizer that has encoded a text (a loop of `load_tokenizer` and `build_trees` alone
shows it), and DVCLive its exit handlers. A leaked batch of these tiny models would be ten times
that, a leaked model twice."""


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
    """The process's memory, once glibc has given back all that nothing uses.

    Without that it moves with how many free blocks it keeps for later (runtime.py asks it to).
    """
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(folder: Path, temporary: Path) -> dict[str, list[int]]:
    """Run the stages in this process, one after the other; what there is after each run."""
    found: dict[str, list[int]] = {"in use": [], "memory": [], "files": [], "threads": []}
    stages = list(STAGES.values())
    first: dict[str, bytes] = {}
    patch = pytest.MonkeyPatch()
    for run in range(RUNS):
        shutil.rmtree(folder / "out", ignore_errors=True)
        arguments = stages[run % len(stages)]
        assert regrow(patch, folder, *arguments) == 0
        written = b"".join(
            path.read_bytes() for path in sorted((folder / "out").rglob("*")) if path.is_file()
        )
        assert first.setdefault(str(arguments[0]), written) == written, f"run {run}"
        gc.collect()
        found["in use"].append(in_use())
        found["memory"].append(resident())
        found["files"].append(len(list(Path("/proc/self/fd").iterdir())))
        found["threads"].append(threading.active_count())
        assert not any((folder / STATES).iterdir())
        assert not list(temporary.iterdir())
    return found


@pytest.mark.slow
def test_two_hundred_runs_leave_nothing_behind(
    prepared: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "a place")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with (folder / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("resume: {interval: 0.0}\n")
    # A process of its own, for what other tests left in this one's memory would be counted.
    out = tmp_path / "found.json"
    subprocess.run(
        [sys.executable, __file__, folder, temporary, out],
        env=os.environ | {"TMPDIR": str(temporary)},
        check=True,
    )
    found: dict[str, list[int]] = json.loads(out.read_text(encoding="utf-8"))
    for name in ("in use", "memory"):
        values = found[name]
        slope, _ = statistics.linear_regression(range(RUNS - WARM), values[WARM:])
        print(
            f"{RUNS} runs, {name}: {values[0] / 2**20:.1f} MiB after the first, "
            f"{values[WARM] / 2**20:.1f} after {WARM}, {values[-1] / 2**20:.1f} at the end, "
            f"{slope:+,.0f} bytes a run from run {WARM} on"
        )
        assert slope < GROWTH
    for name in ("files", "threads"):
        values = found[name]
        print(f"{name}: {values[0]}, {values[WARM]}, {values[-1]}")
        assert values[-1] <= values[WARM]


if __name__ == "__main__":
    place, temporary_files, result = map(Path, sys.argv[1:])
    result.write_text(json.dumps(soak(place, temporary_files)), encoding="utf-8")
