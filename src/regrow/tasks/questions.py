"""Questions and labels: the project's own split files, and the checks of one row.

Questions and labels are kept apart everywhere, so that what must not see a label cannot.
"""

import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.support.errors import UserError

# Where something stands in a file, as "data.jsonl, line 3", with what was read there.
Placed = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its choices (two or more, not blank, possibly repeated); no answer."""

    id: str
    stem: str
    choices: tuple[str, ...]


# Our own split files


def read_questions(path: Path) -> list[Question]:
    """Read a split's questions: a line `{"id", "stem", "choices": [str, …]}` each.

    Raises `UserError` naming file and line for anything else, and for a repeated id.
    """
    placed = [(place, question_at(place, row)) for place, row in json_lines(path)]
    check_ids(placed)
    return [question for _, question in placed]


def read_labels(path: Path, questions: Sequence[Question]) -> list[int]:
    """Read the labels of `questions`: lines `{"id", "answer": int}` in the same order.

    Returns the index of the right choice of each question, from 0. Raises `UserError` naming file
    and line where an id is another than the question's or an answer names none of its choices.
    """
    rows = list(json_lines(path))
    if len(rows) != len(questions):
        raise UserError(
            f"{path} holds {len(rows)} labels, but there are {len(questions)} questions; "
            "labels and questions must come from the same run of the questions stage"
        )
    labels = []
    for (place, row), question in zip(rows, questions, strict=True):
        found = text_at(place, row, "id")
        if found != question.id:
            raise UserError(
                f"{place}: the label is of question {found!r}, but the question in this place is "
                f"{question.id!r}; labels and questions must be in the same order"
            )
        labels.append(answer_at(place, row, len(question.choices)))
    return labels


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write `questions` as `read_questions` reads them."""
    write_lines(path, ({"id": q.id, "stem": q.stem, "choices": q.choices} for q in questions))


def write_labels(path: Path, questions: Iterable[Question], labels: Iterable[int]) -> None:
    """Write the labels of `questions`, one each, as `read_labels` reads them."""
    pairs = zip(questions, labels, strict=True)
    write_lines(path, ({"id": q.id, "answer": label} for q, label in pairs))


# Rows of files


def json_lines(path: Path) -> Iterator[Placed]:
    """Yield each line's object; blank lines count but give nothing."""
    try:
        # As bytes: only \n ends a line, not the other line separators that a text may hold.
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                place = f"{path.name}, line {number}"
                try:
                    row = json.loads(line.decode("utf-8"))
                except (ValueError, RecursionError) as error:
                    raise UserError(f"{place} is not JSON ({error}); correct the line") from None
                if not isinstance(row, dict):
                    raise UserError(f"{place} is not a JSON object; write one object a line")
                yield place, row
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def question_at(place: str, row: Mapping[str, Any]) -> Question:
    choices = field_at(place, row, "choices")
    if not isinstance(choices, list) or len(choices) < 2:
        raise UserError(f"{place}: choices must be a list of two texts or more")
    texts = [checked_text(place, f"choice {i}", text) for i, text in enumerate(choices, start=1)]
    return Question(text_at(place, row, "id"), text_at(place, row, "stem"), tuple(texts))


def answer_at(place: str, row: Mapping[str, Any], choices: int) -> int:
    answer = field_at(place, row, "answer")
    # JSON's true is a Python int as well.
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < choices:
        raise UserError(
            f"{place}: answer {answer!r} names no choice; it must be an index from 0 to "
            f"{choices - 1}"
        )
    return answer


def text_at(place: str, row: Mapping[str, Any], name: str) -> str:
    return checked_text(place, name, field_at(place, row, name))


def checked_text(place: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        shown = reprlib.repr(value)
        raise UserError(f"{place}: {name} must be a text that is not blank (it is {shown})")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f"{place}: {name} holds half a surrogate pair, which is no character")
    return value


def field_at(place: str, row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    if value is None:
        raise UserError(f"{place} lacks the field {name!r}; add it")
    return value


def check_ids(placed: Iterable[tuple[str, Question]]) -> None:
    first: dict[str, str] = {}
    for place, question in placed:
        if question.id in first:
            raise UserError(
                f"{place}: the id {question.id!r} is that of {first[question.id]} already; "
                "each question needs an id of its own"
            )
        first[question.id] = place
