"""The schema of `params.yaml`: strict, so that a misspelt key is an error that names the key."""

import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML

from regrow.errors import UserError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positions = Literal["answer", "all"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Section(BaseModel):
    """A strict section: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Model(Section):
    """Where the unpruned model comes from."""

    source: str
    sha256: Sha256 | None = None


class Data(Section):
    """Where the questions come from, and how many each split holds.

    With `test_source`, the test split is drawn from that source, and `source` gives train and
    calibration only.
    """

    source: str
    sha256: Sha256 | None = None
    test_source: str | None = None
    test_sha256: Sha256 | None = None
    train: Count
    calibration: Count
    test: Count
    seed: Seed = 0


class Prompt(Section):
    """How a question is put to the model: the OLMES formats."""

    format: Literal["cloze", "letters"]


class Compute(Section):
    """Where and in what precision the models run; `threads` fixes the bytes on a CPU."""

    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    threads: Annotated[int, Field(ge=1, le=1024)] = 2


class Resume(Section):
    """After how many seconds of work a stage saves what it needs to go on after an interruption.

    It changes no result, so no stage depends on it.
    """

    interval: Annotated[float, Field(ge=0)] = 120.0


class Training(Section):
    """One schedule: AdamW, linear warm-up over `warmup` of the steps, then `schedule`."""

    batch_size: Count
    epochs: Count
    warmup: Fraction
    schedule: Literal["linear", "cosine", "constant"]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]


class Teacher(Section):
    """Whether and how the unpruned model is first fine-tuned on the task."""

    finetune: bool
    learning_rate: Rate
    positions: Positions
    seed: Seed
    training: Training


class TeacherLogits(Section):
    """What is recorded of the teacher's distributions.

    `top_k: null` records whole distributions, as the teacher's last hidden states. With a number,
    the rest of the mass is one tail bucket, whose size is recorded for each of `temperatures`.
    """

    positions: Positions
    top_k: Count | None
    temperatures: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]


class Prune(Section):
    """Which neurons go: the ones of lowest importance under `score`."""

    score: Literal["l2", "random", "activation"]
    multiple_of: Count
    seed: Seed


class Finetune(Section):
    """Cross-entropy on labelled answers (L2PFT).

    `labels` is the folder below data/ that the answers come from: the gold ones, or the choices of
    the teacher, which take no label.
    """

    learning_rate: Rate
    positions: Positions
    labels: Literal["labels", "teacher_choices"] = "labels"


class Distill(Section):
    """KL from the teacher's recorded distributions (L2PSD)."""

    learning_rate: Rate
    temperature: Annotated[float, Field(gt=0)]


class TransferSet(Section):
    """A multiple-choice set of another task, and how many of its questions are drawn."""

    source: str
    sha256: Sha256 | None = None
    questions: Count


class Evaluate(Section):
    """What is scored beside the calibration and test questions: other tasks, by name."""

    transfer: dict[Name, TransferSet] = {}


class Sweep(Section):
    """The grid: every sparsity with every train size and seed."""

    sparsity: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]
    train_size: Annotated[list[Count], Field(min_length=1)]
    seed: Annotated[list[Seed], Field(min_length=1)]

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        for name in ("sparsity", "train_size", "seed"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} repeats a value")
        return self


class Compare(Section):
    """How predictions become intervals and verdicts.

    `margin` is the loss of accuracy (0.02 is 2 points) up to which one loss is not inferior to the
    other.
    """

    accuracy: Literal["raw", "per_character"]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    seed: Seed
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02


class Params(Section):
    """All of `params.yaml`."""

    model: Model
    data: Data
    prompt: Prompt
    compute: Compute
    resume: Resume = Resume()
    teacher: Teacher
    teacher_logits: TeacherLogits
    prune: Prune
    training: Training
    finetune: Finetune
    distill: Distill
    evaluate: Evaluate = Evaluate()
    sweep: Sweep
    compare: Compare

    @model_validator(mode="after")
    def _train_sizes_fit(self) -> Self:
        largest = max(self.sweep.train_size)
        if largest > self.data.train:
            raise ValueError(
                f"sweep.train_size asks for {largest} questions but data.train holds only "
                f"{self.data.train}; lower the one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _temperature_is_recorded(self) -> Self:
        record = self.teacher_logits
        if record.top_k is not None and self.distill.temperature not in record.temperatures:
            raise ValueError(
                f"distill.temperature is {self.distill.temperature}, but the top-k record holds "
                f"only teacher_logits.temperatures = {record.temperatures}; add it there, or set "
                "teacher_logits.top_k to null"
            )
        return self


PARAMS_FILE = Path("params.yaml")
_read: dict[str, Any] = {}  # what this process read of it, by dotted key


def read_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file; every fault is a `UserError` that names the key."""
    values = _values(path)
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        faults = error.errors()
        listed = "; ".join(_sentence(fault) for fault in faults[:FAULTS])
        more = f"; and {len(faults) - FAULTS} more" if len(faults) > FAULTS else ""
        raise UserError(f"{path}: {listed}{more}") from None
    _read.clear()
    _read.update(_by_key(values))
    return params


def check_unchanged() -> None:
    """Refuse a result under DVC when a parameter that it depends on changed while it was made.

    DVC writes to dvc.lock what params.yaml says once a stage has ended, whatever the stage had
    read, and would then hold a result of the old value for one of the new.
    """
    # DVC tells its stages their names, as `finetune@0.2-600-0`, with dvc.yaml's path in front
    # where it was not started in its folder.
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2].partition("@")[0]
    if not stage or not _read:
        return
    now = dict(_by_key(_values(PARAMS_FILE)))
    tracked = _values(Path("dvc.yaml")).get("stages", {}).get(stage, {}).get("params", [])
    for key in sorted(_read.keys() | now.keys()):
        before, after = _read.get(key), now.get(key)
        if before != after and any(f"{key}.".startswith(f"{name}.") for name in tracked):
            raise UserError(
                f"{key} was changed in params.yaml while this ran, from {before} to {after}; what "
                f"was made is of {before} and is not recorded: run `dvc repro` again"
            )


def _values(path: Path) -> dict[str, Any]:
    """A YAML file's mapping, read by the library that DVC reads and writes it with."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); run this in the project's root"
        ) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line} is not UTF-8 ({error.reason})") from None
    try:
        # In its YAML 1.2, 1e-05 is a number.
        values = YAML(typ="safe", pure=True).load(text)
    except Exception as error:
        # Beside its own YAMLError it lets through whatever its constructors trip over: a
        # ValueError at a month 13, an AttributeError at `!!timestamp x`, a RecursionError.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is not YAML: {reason}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold the sections {', '.join(Params.model_fields)}")
    return values


def _by_key(values: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _by_key(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", value


# What a message shows of a value and of a list of faults. A few lines of YAML can hold a list
# whose text would fill the memory, by naming lists of lists of lists.
FAULTS = 20
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 2, 20, 20
_SHORT.maxstring = _SHORT.maxother = 200


def _sentence(fault: Any) -> str:
    key = ".".join(str(part)[:200] for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{key} is not a parameter (is it misspelt?); {_allowed(fault['loc'][:-1])}"
    if fault["type"] == "missing":
        return f"{key} is missing; add it"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not key:
        return message
    given = fault["input"]
    simple = isinstance(given, str | int | float | list)
    shown = f" (it is {_SHORT.repr(given)})" if simple else ""
    return f"{key}: {message[0].lower()}{message[1:]}{shown}"


def _allowed(section: tuple[str | int, ...]) -> str:
    model: Any = Params
    for part in section:
        # `evaluate.transfer` is a mapping, whose keys are names of the person's own.
        of_name = isinstance(model, type) and issubclass(model, BaseModel)
        model = model.model_fields[part].annotation if of_name else model.__args__[1]
    name = ".".join(str(part) for part in section) or "params.yaml"
    return f"{name} holds {', '.join(model.model_fields)}"
