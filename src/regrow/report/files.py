"""A set of results as it lies in a folder, read without the schema that wrote it.

Results outlive the schema: what today's stages write and what earlier ones wrote are both read,
and what a set does not hold cannot be said.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from regrow.support.errors import UserError
from regrow.support.files import read_yaml

MISSING = "run `make repro` to make it, or name a folder of results that holds it"
Json = Mapping[str, Any]

FILES = {  # below metrics/; behind today's place, that of earlier versions
    "summary": ("summary.json",),
    "comparison": ("compare/comparison.json", "comparison.json"),
    "claims": ("compare/claims.json", "claims.json"),
    "measures": ("compare/measures.json", "evidence/uncertainty.json"),
    "paired": ("compare/paired.json", "evidence/paired.json"),
    "transfer": ("compare/transfer.json", "evidence/transfer.json"),
}


@dataclass(frozen=True)
class Place:
    """Where in the grid a cell lies.

    retention: None where no file says it. regrew: whether a student clearly beat the floor; true
    for earlier results, which did not ask. named: `primary`, `secondary` or `exploratory`.
    """

    score: str
    sparsity: float
    train_size: int
    retention: float | None
    regrew: bool
    named: str


@dataclass(frozen=True)
class Source:
    """A set of results: `params.yaml`, the stages of `dvc.lock`, `metrics/` and `plots/`."""

    folder: Path

    @cached_property
    def params(self) -> Json:
        """`params.yaml` as it lies there."""
        return read_yaml(self.folder / "params.yaml", MISSING)

    def has(self, name: str) -> bool:
        """Whether the set holds one of `FILES`."""
        return self._path(name).exists()

    @contextmanager
    def read(self, name: str) -> Iterator[Json]:
        """One of `FILES`; what goes wrong with its values is a `UserError` that names the file."""
        path = self._path(name)
        found = read_json(path)
        with in_form(path):
            yield found

    @cached_property
    def places(self) -> dict[str, Place]:
        """The cells of the comparison by their names."""
        score = self.params.get("prune", {}).get("score", "l2")  # what was no axis of the sweep
        with self.read("paired") as paired:
            tests = {
                key: (cell.get("regrew"), cell.get("named"))
                for key, cell in paired["sweep"].items()
            }
        with self.read("comparison") as comparison:
            return {
                key: Place(
                    cell.get("score", score),
                    float(cell["sparsity"]),
                    int(cell["train_size"]),
                    cell.get("retention"),
                    tests.get(key, (None, None))[0] != [],
                    tests.get(key, (None, None))[1] or "exploratory",
                )
                for key, cell in comparison["sweep"].items()
            }

    def _path(self, name: str) -> Path:
        paths = [self.folder / "metrics" / place for place in FILES[name]]
        # Where there is none, today's is the one that is missing.
        return next((path for path in paths if path.exists()), paths[0])


def read_json(path: Path) -> Json:
    """The object in a JSON file; a `UserError` names a file that is missing or holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path} is missing; {MISSING}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); {MISSING}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; {MISSING}")
    return value


@contextmanager
def in_form(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file's values into a `UserError` that names the file."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} does not have the form that this version reads "
            f"({type(error).__name__}: {error}); {MISSING}"
        ) from None
