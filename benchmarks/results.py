"""`benchmarks/results.json`: what was measured, against what, and the limit that it must keep."""

from pathlib import Path
from statistics import median
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, computed_field

from regrow.support.errors import UserError
from regrow.support.files import write_json

Note = str | bool | int | float | list[int] | list[float] | list[str]


class Section(BaseModel):
    """A part of the file; what is computed is written too, and computed anew when it is read."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Measure(Section):
    """Repeated measurements of one thing.

    Attributes:
        what: who or what was measured, as "regrow".
        unit: as "questions/s".
        values: in the order of the rounds.
        of_ceiling: useful operations a second over those of the fastest matrix product, if it is a
            rate that operations were counted for; the median.
        peak_bytes: the most memory that its process held, if that was its own.
    """

    what: str
    unit: str
    values: list[float]
    of_ceiling: float | None = None
    peak_bytes: int | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def median(self) -> float:
        """The middle value."""
        return median(self.values)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)


class Target(Section):
    """A limit: the figure is at least it, or at most."""

    limit: float
    at_least: bool
    text: str

    @classmethod
    def least(cls, limit: float, text: str) -> Self:
        """The figure must reach `limit`."""
        return cls(limit=limit, at_least=True, text=text)

    @classmethod
    def most(cls, limit: float, text: str) -> Self:
        """The figure must not pass `limit`."""
        return cls(limit=limit, at_least=False, text=text)

    def met_by(self, figure: float) -> bool:
        """Whether a figure keeps the limit."""
        return figure >= self.limit if self.at_least else figure <= self.limit


class Row(Section):
    """One line of the table.

    Attributes:
        group: the part of the benchmark that it is of.
        name: what is measured.
        ours: this project's measurements, or none if there are none.
        against: what it is held against; one value, or one for each of ours, of the same round.
        ratio: which way the two are divided; without it, the target is of `ours` alone.
        percent: whether the ratio is a share that reads better in percent.
        target: the limit, or none.
        notes: what was found beside it.
        not_measured: why it was not.
    """

    group: str
    name: str
    ours: Measure | None = None
    against: Measure | None = None
    ratio: Literal["ours / against", "against / ours"] | None = None
    percent: bool = False
    target: Target | None = None
    notes: dict[str, Note] = {}
    not_measured: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def figure(self) -> float | None:
        """What the target is a limit of: the ratio of the medians, or our median."""
        if self.not_measured is not None or self.ours is None:
            return None
        if self.ratio is None:
            return self.ours.median
        return None if self.against is None else self._divide(self.ours.median, self.against.median)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def spread(self) -> tuple[float, float] | None:
        """The smallest and the largest figure of a round."""
        if self.figure is None or self.ours is None:
            return None
        if self.ratio is None or self.against is None:
            return self.ours.low, self.ours.high
        others = self.against.values
        if len(others) == 1:
            others = others * len(self.ours.values)
        rounds = [
            self._divide(ours, other) for ours, other in zip(self.ours.values, others, strict=True)
        ]
        return min(rounds), max(rounds)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def met(self) -> bool | None:
        """Whether the target is kept; none where there is no target or no figure."""
        if self.target is None or self.figure is None:
            return None
        return self.target.met_by(self.figure)

    def _divide(self, ours: float, against: float) -> float:
        return ours / against if self.ratio == "ours / against" else against / ours


class Results(Section):
    """The whole file."""

    machine: dict[str, str | int | float]
    versions: dict[str, str]
    settings: dict[str, str | int | float]
    rows: list[Row]


def read_results(path: Path) -> Results:
    """Read what `write_results` wrote."""
    try:
        return Results.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} holds no results ({reason}); run `make bench`") from None


def write_results(path: Path, results: Results) -> None:
    """Write the file whole."""
    write_json(path, results.model_dump(mode="json", exclude_none=True))
