"""What a page is made of: sections of tables, figures and sentences. The template draws each."""

from collections.abc import Sequence
from typing import NamedTuple


class Field(NamedTuple):
    """A field of a table that is more than text.

    strong: the interval of a difference does not hold 0. verdict: a word that stands before it.
    """

    text: str
    strong: bool = False
    verdict: str = ""

    def __str__(self) -> str:
        return f"{self.verdict} {self.text}".strip()


class Table(NamedTuple):
    """A table; the first field of a row is its heading, and `head` has one for every field.

    look: `numbers`, `words`, which stand left, or `stack`, which a narrow screen shows as a list.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | Field]]
    note: str = ""
    look: str = "numbers"


class Figure(NamedTuple):
    """An image as a data: URI, with the path that it lies under in the set of results."""

    path: str
    caption: str
    alt: str
    uri: str


class Fold(NamedTuple):
    """Tables, or a file's text as it is, folded away under a title."""

    title: str
    parts: Sequence[Table] = ()
    text: str = ""


Part = str | Table | Figure | Fold  # the first is a paragraph


class Section(NamedTuple):
    """A heading with what stands under it; `id` is the target of links to it."""

    id: str
    title: str
    parts: Sequence[Part]
