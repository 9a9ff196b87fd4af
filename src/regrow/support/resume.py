"""Work that was interrupted goes on where it was.

DVC deletes a stage's outputs before it runs the stage, so what a stage needs to go on lies
elsewhere: in `.regrow/`, one folder an output, named by a hash of all that the output depends on.
State of other inputs, parameters, code or libraries has another name, and is removed. The folder
goes when the output is written.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from regrow.support import ranks
from regrow.support.environment import LIBRARIES
from regrow.support.files import file_hash, replacing
from regrow.support.schema import Compute

STATES = Path(".regrow")
PROGRESS = "progress.json"


class Unfinished:
    """The state of one output's work; its folder is empty when there is nothing to go on from."""

    def __init__(self, folder: Path, interval: float) -> None:
        self.folder = folder
        self._interval = interval
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether `interval` seconds have passed since the start or the last `saved`."""
        return time.monotonic() - self._saved >= self._interval

    def saved(self) -> None:
        """Take note that the state was just saved."""
        self._saved = time.monotonic()

    def read(self) -> Any:
        """The progress that `write` kept, or None, also where it is damaged."""
        path = self.folder / PROGRESS
        if not path.exists():
            return None
        with suppress(ValueError, KeyError, TypeError):
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["sha256"] == _sha256(json.dumps(kept["progress"])):
                return kept["progress"]
        self.discard(path)
        return None

    def write(self, progress: Any) -> None:
        """Keep `progress`, whole or not at all, even if the machine stops."""
        text = json.dumps(progress)
        with replacing(self.folder / PROGRESS) as beside:
            kept = f'{{"sha256": "{_sha256(text)}", "progress": {text}}}'
            beside.write_text(kept, encoding="utf-8")
        self.saved()

    def part(self, name: str) -> "Unfinished":
        """The state of a part of the work, in a folder of its own, saved as often."""
        (self.folder / name).mkdir(exist_ok=True)
        return Unfinished(self.folder / name, self._interval)

    def discard(self, damaged: Path) -> None:
        """Remove all state and say why, so that the work starts anew."""
        print(f"The state of an interrupted run is damaged ({damaged}): starting anew.", flush=True)
        shutil.rmtree(self.folder)
        self.folder.mkdir()


@contextmanager
def unfinished(
    out: Path, inputs: Sequence[Path], settings: Sequence[object], interval: float
) -> Iterator[Unfinished]:
    """The state of the work that writes `out`; removed when the work is done.

    Another content of `inputs` or other `settings` (numbers, texts, lists of them, or sections)
    make another state. After `interval` seconds `Unfinished.due` says that it is to be saved.
    """
    home = STATES / out.as_posix().strip("/").replace("/", "--")
    folder = home / ranks.told(_key(out, inputs, settings) if ranks.first() else "")
    if ranks.first():
        if home.is_dir():
            for stale in sorted(home.iterdir()):
                if stale != folder:
                    shutil.rmtree(stale)
        folder.mkdir(parents=True, exist_ok=True)
    ranks.wait()
    yield Unfinished(folder, interval)
    if ranks.first():
        # The folder of all states stays: another stage may be about to make its own in it.
        shutil.rmtree(home)


def fingerprints(folder: Path) -> dict[str, str]:
    """A hash of each file (or folder) in `folder` by name, but of compiled code."""
    parts = sorted(path for path in folder.iterdir() if path.name != "__pycache__")
    return {path.name: content(path) for path in parts}


def content(path: Path) -> str:
    """A hash of a file, or of the names and hashes of a folder's files."""
    return _sha256(json.dumps(fingerprints(path))) if path.is_dir() else file_hash(path)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _key(out: Path, inputs: Sequence[Path], settings: Sequence[object]) -> str:
    described = {
        "out": out.as_posix(),
        "inputs": {path.as_posix(): content(path) for path in inputs},
        "settings": [
            # What some processes saved, others go on from, however many there are.
            value.model_dump(exclude={"launch", "processes"} if type(value) is Compute else None)
            if isinstance(value, BaseModel)
            else value
            for value in settings
        ],
        "code": content(Path(__file__).parents[1]),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    return _sha256(json.dumps(described, sort_keys=True))[:32]
