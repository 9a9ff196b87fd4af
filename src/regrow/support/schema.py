"""The schema of `params.yaml`: strict, so that a misspelt key is an error that names the key.

It has no defaults: every key stands in every study, so that the schema can refuse a file and never
change what one says. That is why no stage depends on it. docs/parameters.md explains every key.
"""

import itertools
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from regrow.support.tables import entries

Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positions = Literal["answer", "all"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def _one_of(module: str, table: str) -> AfterValidator:
    """Only names of a table, which a function in its file extends."""

    def check(name: str) -> str:
        known = entries(module, table)
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
        return name

    return AfterValidator(check)


Score = Annotated[str, _one_of("prune/scores.py", "SCORES")]
Divergence = Annotated[str, _one_of("distill/divergence.py", "DIVERGENCES")]


class Section(BaseModel):
    """A strict section: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Model(Section):
    """Where the unpruned model comes from."""

    source: str
    sha256: Sha256 | None


class Columns(Section):
    """Which columns of a data set hold what, where it has no known layout."""

    id: str | None
    stem: str
    choices: str | list[str]
    answer: str


class Data(Section):
    """Where the questions come from, and how many each split holds."""

    source: str
    sha256: Sha256 | None
    columns: Columns | None
    test_source: str | None
    test_sha256: Sha256 | None
    train: Count
    calibration: Count
    test: Count
    held_out: Annotated[int, Field(ge=0)]
    seed: Seed


class Prompt(Section):
    """How a question is put to the model: the OLMES formats."""

    format: Literal["cloze", "letters"]


class Compute(Section):
    """Where, in what precision and by how many processes the models run."""

    device: str
    dtype: Literal["float32", "bfloat16", "float16"]
    mixed_precision: Literal["bfloat16"] | None
    threads: Annotated[int, Field(ge=1, le=1024)]
    launch: str
    processes: Count
    shard: bool
    micro_batch: Count | None
    checkpointing: bool


class Resume(Section):
    """After how many seconds of work a stage saves its state; no stage depends on it."""

    interval: Annotated[float, Field(ge=0)]


class Training(Section):
    """One schedule: AdamW, linear warm-up over `warmup` of the steps, then `schedule`."""

    batch_size: Count
    epochs: Count
    steps: Count | None
    warmup: Fraction
    schedule: Literal["linear", "cosine", "constant"]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Positive


class Teacher(Section):
    """Whether and how the unpruned model is first fine-tuned on the task."""

    finetune: bool
    learning_rate: Rate
    positions: Positions
    train_size: Count | None
    seed: Seed
    training: Training


class TeacherLogits(Section):
    """At which positions the teacher's distributions are recorded, as its last hidden states."""

    positions: Positions


class Prune(Section):
    """How the neurons of lowest importance (`sweep.score`) go."""

    multiple_of: Count
    seed: Seed
    sequential: bool
    steps: Count


Rates = dict[Score, Rate | dict[str, Rate]]
"""The highest rate by importance score: one for all sparsities, or one for each, as "0.5"."""


class Finetune(Section):
    """Cross-entropy on labelled answers (L2PFT), gold ones or the teacher's."""

    learning_rate: Rates
    positions: Positions
    labels: Literal["labels", "teacher_choices"]


class Distill(Section):
    """A divergence from the teacher's recorded distributions (L2PSD)."""

    learning_rate: Rates
    temperature: Positive
    divergence: Divergence
    branches: Literal["all", "gold"]


class TransferSet(Section):
    """A multiple-choice set of another task, and how many of its questions are drawn."""

    source: str
    sha256: Sha256 | None
    columns: Columns | None
    questions: Count


class Evaluate(Section):
    """What is scored beside the calibration and test questions: other tasks, by name."""

    transfer: dict[Name, TransferSet]


class Sweep(Section):
    """The grid: every importance score with every sparsity, train size and seed."""

    score: Annotated[list[Score], Field(min_length=1)]
    sparsity: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]
    train_size: Annotated[list[Count], Field(min_length=1)]
    seed: Annotated[list[Seed], Field(min_length=1)]

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        for name, values in self:
            if len(set(values)) < len(values):
                raise ValueError(f"{name} repeats a value")
        return self


class Compare(Section):
    """How predictions become intervals and verdicts."""

    accuracy: Literal["raw", "per_character"]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    seed: Seed
    margin: Annotated[float, Field(gt=0, lt=1)]
    primary: list[str]
    secondary: list[str]


class Params(Section):
    """All of `params.yaml`."""

    model: Model
    data: Data
    prompt: Prompt
    compute: Compute
    resume: Resume
    teacher: Teacher
    teacher_logits: TeacherLogits
    prune: Prune
    training: Training
    finetune: Finetune
    distill: Distill
    evaluate: Evaluate
    sweep: Sweep
    compare: Compare

    @model_validator(mode="after")
    def _train_sizes_fit(self) -> Self:
        sweep, teacher = max(self.sweep.train_size), self.teacher.train_size or 0
        for key, largest in {"sweep.train_size": sweep, "teacher.train_size": teacher}.items():
            if largest > self.data.train:
                raise ValueError(
                    f"{key} asks for {largest} questions but data.train holds only "
                    f"{self.data.train}; lower the one or raise the other"
                )
        return self

    @model_validator(mode="after")
    def _every_cell_has_a_rate(self) -> Self:
        losses: dict[str, Finetune | Distill] = {"finetune": self.finetune, "distill": self.distill}
        grid = itertools.product(losses.items(), self.sweep.score, self.sweep.sparsity)
        for (loss, section), score, sparsity in grid:
            try:
                rate_of(section.learning_rate, score, sparsity)
            except KeyError as missing:
                raise ValueError(
                    f"{loss}.learning_rate names no rate for the score {score} at the sparsity "
                    f"{sparsity}; add {missing}, or give a score one number for all sparsities"
                ) from None
        return self

    @model_validator(mode="after")
    def _named_cells_are_of_the_sweep(self) -> Self:
        grid = (self.sweep.score, self.sweep.sparsity, self.sweep.train_size)
        cells = ["-".join(map(str, axes)) for axes in itertools.product(*grid)]
        for name in ("primary", "secondary"):
            for cell in getattr(self.compare, name):
                if cell not in cells:
                    raise ValueError(
                        f"compare.{name} names the cell {cell!r}, which the sweep does not hold; "
                        f"its cells are {', '.join(cells)}"
                    )
        return self


def rate_of(rates: Rates, score: str, sparsity: float) -> float:
    """The rate of one score and sparsity."""
    given = rates[score]
    return given[str(sparsity)] if isinstance(given, dict) else given
