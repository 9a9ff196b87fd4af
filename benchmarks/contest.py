"""Running contestants by turns, each in its own process."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]


class NotMeasuredError(Exception):
    """Why something could not be measured, as a phrase."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant: `module:function` of `benchmarks.worker`, and its settings."""

    target: str
    settings: Mapping[str, Any]


@dataclass(slots=True)
class Outcome:
    """What a contestant found before its runs and in each of them, or why it could not."""

    facts: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    fault: str | None = None

    def series(self, key: str) -> list[float]:
        """One value of every run.

        Raises:
            NotMeasuredError: the contestant failed.
        """
        if self.fault is not None:
            raise NotMeasuredError(self.fault)
        return [float(run[key]) for run in self.runs]

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that a run needed."""
        return max((int(run["peak_bytes"]) for run in self.runs), default=None)


def environment(threads: int, scratch: Path) -> dict[str, str]:
    """What contestants run in: so many threads, no network, caches in `scratch`."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE / "src")]),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(scratch / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "WANDB_MODE": "disabled",
        "MPLCONFIGDIR": str(scratch / "matplotlib"),
    }


class Contestant:
    """A worker that waits for its turn.

    Raises:
        NotMeasuredError: it could not be prepared.
    """

    def __init__(self, entry: Entry, variables: Mapping[str, str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, for `close` closes it
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.worker",
                entry.target,
                json.dumps(dict(entry.settings)),
            ],
            env=dict(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )
        try:
            self.facts = self._answer()
        except NotMeasuredError:
            self.close()
            raise

    def run(self) -> dict[str, Any]:
        """One run."""
        assert self._process.stdin is not None
        try:
            print(file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise NotMeasuredError(self._last_words()) from None
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise NotMeasuredError(self._last_words())
        found: dict[str, Any] = json.loads(line)
        return found

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        said = lines[-1] if lines else f"it ended with status {self._process.returncode}"
        return said.replace(str(Path.home()), "~").replace(str(Path.cwd()), ".")[:200]


def contest(
    entries: Mapping[str, Entry], repeats: int, variables: Mapping[str, str]
) -> dict[str, Outcome]:
    """Run all contestants by turns, `repeats` rounds after one that warms up and does not count.

    A contestant that fails drops out, and the others go on.
    """
    outcomes = {name: Outcome() for name in entries}
    running: dict[str, Contestant] = {}
    try:
        for name, entry in entries.items():
            try:
                running[name] = Contestant(entry, variables)
                outcomes[name].facts = running[name].facts
            except NotMeasuredError as fault:
                outcomes[name].fault = str(fault)
        for number in range(repeats + 1):
            for name in list(running):
                try:
                    found = running[name].run()
                except NotMeasuredError as fault:
                    outcomes[name].fault = str(fault)
                    running.pop(name).close()
                    continue
                if number:
                    outcomes[name].runs.append(found)
    finally:
        for contestant in running.values():
            contestant.close()
    return outcomes


def once(target: str, settings: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """Prepare a contestant for what it finds by that alone.

    Raises:
        NotMeasuredError: it failed.
    """
    contestant = Contestant(Entry(target, settings), variables)
    contestant.close()
    return contestant.facts
