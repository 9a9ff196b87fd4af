"""Bringing about the faults of a machine: a stage run apart, hindered, on disks of its own."""

import os
import re
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch


def run_apart(
    folder: Path, *arguments: object, hinder: Callable[[], Any] = lambda: None
) -> tuple[int, str]:
    """`python -m regrow ARGUMENTS…` in a process of its own, after `hinder`; status and output."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Nothing of pytest's may run in here.
        status = 3
        try:
            os.close(reading)
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            # Open as long as the child lives, so that no `with` can hold them.
            sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
            os.chdir(folder)
            sys.argv = ["regrow", *map(str, arguments)]
            torch.set_num_threads(1)
            hinder()
            runpy.run_module("regrow", run_name="__main__")
            status = 0
        except SystemExit as ended:
            if isinstance(ended.code, str):
                print(ended.code, file=sys.stderr)
            status = 1 if isinstance(ended.code, str) else ended.code or 0
        except BaseException:
            traceback.print_exc()
            status = 2
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as printed:
        said = printed.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said


def sentence(said: str) -> str:
    """The one line that is printed of a fault, among the lines of progress."""
    assert "Traceback" not in said, said
    lines = re.findall(r"regrow \w+: .*", said)
    assert len(lines) == 1, said
    return str(lines[0])


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount on `folder` as `mount OPTIONS… FOLDER` does; skip the test where that is refused."""
    folder.mkdir(exist_ok=True)
    try:
        done = subprocess.run(
            ["mount", *options, str(folder)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, free: int) -> Path:
    """Write a file on the disk of `folder` that leaves about `free` bytes; return it."""
    ballast = folder / "ballast"
    disk = os.statvfs(folder)
    ballast.write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - free)))
    return ballast
