"""What all parts share: the reproduced study, its counts, contestants and stages."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.contest import Entry, NotMeasuredError, Outcome, contest, environment, once
from regrow.support.errors import UserError
from regrow.support.params import read_params
from regrow.support.schema import Params

GIBI = 2**30
FEW = 32  # fewer questions than that only try everything out, and on small matrices


@dataclass(frozen=True, slots=True)
class Files:
    """A part of a split: a file of questions, one of their labels, and how many they are."""

    questions: Path
    labels: Path
    count: int


@dataclass(frozen=True, slots=True)
class StageRun:
    """A stage that ran.

    Attributes:
        seconds: to its end.
        first: seconds to its first batch, if that was asked for.
        peak_bytes: the most memory that it held, pages of mapped files among them.
        own_bytes: the most that was seen without those, if it was watched.
    """

    seconds: float
    first: float | None
    peak_bytes: int
    own_bytes: int | None


@dataclass(frozen=True, slots=True)
class Bench:
    """A benchmark of the study that lies in `root`.

    Attributes:
        root: the folder of the reproduced study.
        params: its parameters.
        questions: how many questions the contests take; other counts follow from it.
        repeats: how many rounds.
        scratch: a folder for everything that is written.
    """

    root: Path
    params: Params
    questions: int
    repeats: int
    scratch: Path

    @property
    def teacher(self) -> Path:
        """The teacher's folder."""
        return self.root / "models" / "teacher"

    @property
    def python(self) -> Path:
        """What stages run with: the study's own Python, which has less to import than this one."""
        own = self.root / ".venv" / "bin" / "python"
        return own if own.is_file() else Path(sys.executable)

    @property
    def tiny(self) -> bool:
        """Whether everything is only tried out."""
        return self.questions < FEW

    @property
    def score(self) -> str:
        """The importance score of the pruned models that are looked at."""
        return self.params.sweep.score[0]

    def pruned(self, sparsity: float) -> Path:
        """A pruned model's folder."""
        return self.root / "models" / "pruned" / f"{self.score}-{sparsity}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of every process that is started."""
        return environment(self.params.compute.threads, self.scratch)

    def settings(self, **more: Any) -> dict[str, Any]:
        """Settings of a contestant: the study's parameters, and more; paths become texts."""
        given = {
            name: str(value) if isinstance(value, Path) else value for name, value in more.items()
        }
        return {"params": self.params.model_dump(mode="json"), "scratch": str(self.scratch)} | given

    def contest(self, entries: Mapping[str, Entry]) -> dict[str, Outcome]:
        """Run contestants by turns."""
        return contest(entries, self.repeats, self.variables)

    def once(self, target: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What a contestant finds by being prepared."""
        return once(target, settings, self.variables)

    def take(self, split: str, count: int) -> Files:
        """The first `count` questions of a split, or all if there are fewer."""
        folder = self.scratch / f"{split}-{count}"
        folder.mkdir(exist_ok=True)
        taken = 0
        for kind in ("questions", "labels"):
            source = self.root / "data" / kind / f"{split}.jsonl"
            with source.open(encoding="utf-8") as file:
                lines = list(islice(file, count))
            (folder / f"{kind}.jsonl").write_text("".join(lines), encoding="utf-8")
            taken = len(lines)
        return Files(folder / "questions.jsonl", folder / "labels.jsonl", taken)

    def stage(
        self,
        *arguments: str | Path,
        first: str = "-",
        changes: Mapping[str, Any] | None = None,
        watch: bool = False,
    ) -> StageRun:
        """Run `python -m regrow …` in a folder of its own, with the study's parameters.

        Args:
            arguments: the stage and its options.
            first: the function at whose first call the first batch begins, as `module:function`;
                with `!` behind it, the process ends there.
            changes: sections of params.yaml to change, as `{"data": {"train": 8}}`.
            watch: look at its memory while it runs.

        Raises:
            NotMeasuredError: the stage failed.
        """
        folder = self.scratch / "stage"
        folder.mkdir(exist_ok=True)
        params = self.params.model_dump(mode="json")
        for section, values in (changes or {}).items():
            params[section] |= values
        # JSON is YAML.
        (folder / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
        note, log = folder / "note.json", folder / "log.txt"
        note.unlink(missing_ok=True)
        with log.open("wb") as output:
            started = time.monotonic()
            process = subprocess.Popen(
                [self.python, "-m", "benchmarks.stage", note, first, *map(str, arguments)],
                cwd=folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            own = _watch(process) if watch else None
            status = process.wait()
            seconds = time.monotonic() - started
        if status != 0 or not note.is_file():
            said = log.read_text("utf-8", "replace").strip().splitlines() or [f"status {status}"]
            raise NotMeasuredError(f"the stage {arguments[0]} failed: {said[-1][:200]}")
        found = json.loads(note.read_text(encoding="utf-8"))
        begun = found.get("first")
        begun = None if begun is None else begun - started
        return StageRun(seconds, begun, int(found["peak_bytes"]), own)


def _watch(process: "subprocess.Popen[bytes]") -> int:
    """The most memory of a process that is no mapped file, looked at until it ends."""
    most = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            break
        for line in status.splitlines():
            if line.startswith("RssAnon:"):
                most = max(most, int(line.split()[1]) * 1024)
        time.sleep(0.05)
    return most


def reproduced(root: Path) -> Params:
    """The parameters of the study in `root`.

    Raises:
        UserError: what the benchmarks read is not there, or was not made on a processor.
    """
    params = read_params(root / "params.yaml")
    if params.compute.device != "cpu":
        raise UserError(
            f"compute.device is {params.compute.device}, but the benchmarks measure a processor; "
            "set it to cpu and run `make repro` first"
        )
    score = params.sweep.score[0]
    models = ["teacher", *(f"pruned/{score}-{sparsity}" for sparsity in params.sweep.sparsity)]
    wanted = [f"models/{name}/model.safetensors" for name in models]
    wanted += [
        f"data/{kind}/{split}.jsonl"
        for kind in ("questions", "labels")
        for split in ("train", "test")
    ]
    for path in wanted:
        if not (root / path).is_file():
            raise UserError(
                f"{path} is missing: the benchmarks run on the models and questions of the "
                "reproduced study; run `make repro` first"
            )
    return params


def fitted(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Least squares: the value at size 0, and what one more costs."""
    middle, mean = sum(sizes) / len(sizes), sum(values) / len(values)
    spread = sum((size - middle) ** 2 for size in sizes)
    slope = (
        sum((size - middle) * (value - mean) for size, value in zip(sizes, values, strict=True))
        / spread
        if spread
        else 0.0
    )
    return mean - slope * middle, slope
