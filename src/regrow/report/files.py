"""A set of results as it lies in a folder, read without the schema that wrote it.

Results outlive the schema: what today's stages write and what earlier ones wrote are both read,
and what a set does not hold cannot be said.
"""

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from regrow.support import files

MISSING = "run `make repro` to make it, or name a folder of results that holds it"
Json = Mapping[str, Any]

read_json = partial(files.read_json, advice=MISSING)
in_form = partial(files.in_form, advice=MISSING)

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
            read = files.read_json if path.suffix == ".json" else files.read_yaml
            self._found[name] = read(path, MISSING)
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
