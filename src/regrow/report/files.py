"""A set of results as it lies in a folder, read without the schema that wrote it.

Results outlive the schema: what today's stages write and what earlier ones wrote are both read,
and what a set does not hold cannot be said.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from regrow.support.errors import UserError
from regrow.support.files import read_yaml

MISSING = "run `make repro` to make it, or name a folder of results that holds it"
Json = Mapping[str, Any]

FILES = {  # behind today's place, that of earlier versions
    "params": ("params.yaml",),
    "lock": ("dvc.lock",),
    "summary": ("metrics/summary.json",),
    "comparison": ("metrics/compare/comparison.json", "metrics/comparison.json"),
    "claims": ("metrics/compare/claims.json", "metrics/claims.json"),
    "measures": ("metrics/compare/measures.json", "metrics/evidence/uncertainty.json"),
    "paired": ("metrics/compare/paired.json", "metrics/evidence/paired.json"),
    "transfer": ("metrics/compare/transfer.json", "metrics/evidence/transfer.json"),
    "frontier": ("edge/metrics/frontier.json",),
}


class Place(NamedTuple):
    """Where in the grid a cell lies.

    fields: score, sparsity, train questions and parameters kept, in words. regrew: whether a
    student clearly beat the floor; true for earlier results, which did not ask.
    """

    fields: tuple[str, str, str, str]
    regrew: bool = True
    named: str = "exploratory"


class Source:
    """A set of results: its folder and those of `FILES` that it holds, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, Json] = {}

    def path(self, name: str) -> Path:
        """Where one of `FILES` lies; where there is none, today's place."""
        paths = [self.folder / place for place in FILES[name]]
        return next(filter(Path.exists, paths), paths[0])

    def read(self, name: str) -> Json:
        """What one of `FILES` holds."""
        if name not in self._found:
            path = self.path(name)
            read = read_json(path) if path.suffix == ".json" else read_yaml(path, MISSING)
            self._found[name] = read
        return self._found[name]

    @cached_property
    def places(self) -> dict[str, Place]:
        """The cells of the comparison by their names."""
        score = self.read("params").get("prune", {}).get("score", "l2")  # once no axis of the sweep
        places = {}
        with in_form(self.path("comparison")):
            for key, cell in self.read("comparison")["sweep"].items():
                kept = f"{100 * cell['retention']:.1f} %"
                size = f"{cell['sparsity']:g}", f"{cell['train_size']:,}", kept
                places[key] = Place((cell.get("score", score), *size))
        with in_form(self.path("paired")):
            for key, cell in self.read("paired")["sweep"].items():
                said = cell.get("regrew") != [], cell.get("named") or "exploratory"
                places[key] = Place(places[key].fields, *said)
        return places


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
