"""`python -m benchmarks.jobs`: a study from nothing, one stage at a time and several side by side.

Each run is in a clone with a cache of its own, and all of them must leave the same dvc.lock. The
clones are of what is committed; the machine should have nothing else to do.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.machine import machine, versions
from regrow.support.files import write_json


def main(
    jobs: Annotated[int, typer.Option(min=2, help="How many stages at once.")] = 2,
    study: Annotated[Path, typer.Option(help="The study's file.")] = Path("params.yaml"),
    threads: Annotated[int | None, typer.Option(help="compute.threads, if another.")] = None,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("benchmarks/jobs.json"),
) -> None:
    """Time `dvc repro` and `regrow repro --jobs`, and compare what they leave."""
    seconds: dict[int, float] = {}
    locks: dict[int, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, jobs):
            clone = Path(folder) / f"jobs-{count}"
            subprocess.run(["git", "clone", "--quiet", ".", str(clone)], check=True)
            text = study.read_text(encoding="utf-8")
            if threads is not None:
                lines = text.splitlines(keepends=True)
                text = "".join(
                    f"  threads: {threads}\n" if line.startswith("  threads:") else line
                    for line in lines
                )
            (clone / "params.yaml").write_text(text, encoding="utf-8")
            (clone / "dvc.lock").unlink(missing_ok=True)
            seconds[count] = _run(clone, count)
            locks[count] = (clone / "dvc.lock").read_bytes()
            print(f"{count} at once: {seconds[count]:.0f} s", flush=True)
    write_json(
        out,
        {
            "machine": machine(),
            "versions": versions(),
            "seconds": {str(count): round(value, 1) for count, value in seconds.items()},
            "times_as_fast": round(seconds[1] / seconds[jobs], 3),
            "same_lock": locks[1] == locks[jobs],
        },
    )


def _run(clone: Path, count: int) -> float:
    """Seconds of a whole study."""
    program = ["dvc", "repro"] if count == 1 else ["regrow", "repro", "--jobs", str(count)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", *program],
        cwd=clone,
        env=os.environ | {"PATH": path, "PYTHONPATH": "src"},
        check=True,
    )
    return time.monotonic() - started


if __name__ == "__main__":
    typer.run(main)
