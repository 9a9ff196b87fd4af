"""What a page is made of: sections of tables, figures and sentences. The template draws each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Cell:
    """One field of a table, all of it text.

    strong: the interval of a difference does not hold 0. verdict: a word that stands before it.
    """

    text: str
    strong: bool = False
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first field of a row is its heading, and `head` has one for every field.

    look: `numbers`, `words`, which stand left, or `stack`, which a narrow screen shows as a list.
    """

    kind: ClassVar = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    look: str = "numbers"


@dataclass(frozen=True)
class Figure:
    """An image as a data: URI, with the path that it lies under in the set of results."""

    kind: ClassVar = "figure"
    path: str
    caption: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Note:
    """A sentence or two; `quiet` beside a table."""

    kind: ClassVar = "note"
    text: str
    quiet: bool = True


@dataclass(frozen=True)
class Verbatim:
    """A file's text as it is, folded away under its name."""

    kind: ClassVar = "verbatim"
    name: str
    text: str


@dataclass(frozen=True)
class Fold:
    """Parts that are folded away under a heading."""

    kind: ClassVar = "fold"
    title: str
    parts: "Sequence[Part]"


Part = Table | Figure | Note | Verbatim | Fold


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it; `id` is the target of links to it."""

    id: str
    title: str
    parts: Sequence[Part]
