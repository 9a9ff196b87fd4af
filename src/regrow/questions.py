"""Multiple-choice questions: reading and checking data sets, splitting them.

Questions and labels are kept apart everywhere, so that what must not see a label cannot.
"""

import hashlib
import json
import reprlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.errors import UserError

SPLITS = ("train", "calibration", "test")
SOURCE_SUFFIXES = (".jsonl", ".parquet", ".arrow")

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
    placed = [(place, _question(place, row)) for place, row in _json_lines(path)]
    _check_ids(placed)
    return [question for _, question in placed]


def read_labels(path: Path, questions: Sequence[Question]) -> list[int]:
    """Read the labels of `questions`: lines `{"id", "answer": int}` in the same order.

    Returns the index of the right choice of each question, from 0. Raises `UserError` naming file
    and line where an id is another than the question's or an answer names none of its choices.
    """
    rows = list(_json_lines(path))
    if len(rows) != len(questions):
        raise UserError(
            f"{path} holds {len(rows)} labels, but there are {len(questions)} questions; "
            "labels and questions must come from the same run of the questions stage"
        )
    labels = []
    for (place, row), question in zip(rows, questions, strict=True):
        found = _text(place, row, "id")
        if found != question.id:
            raise UserError(
                f"{place}: the label is of question {found!r}, but the question in this place is "
                f"{question.id!r}; labels and questions must be in the same order"
            )
        labels.append(_answer(place, row, len(question.choices)))
    return labels


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write `questions` as `read_questions` reads them."""
    _write_lines(path, ({"id": q.id, "stem": q.stem, "choices": q.choices} for q in questions))


def write_labels(path: Path, questions: Iterable[Question], labels: Iterable[int]) -> None:
    """Write the labels of `questions`, one each, as `read_labels` reads them."""
    pairs = zip(questions, labels, strict=True)
    _write_lines(path, ({"id": q.id, "answer": label} for q, label in pairs))


# Data sets


def read_source(path: Path) -> tuple[list[Question], list[int]]:
    """Read a labelled data set: its questions and, for each, the index of the right choice.

    The file is `.jsonl` (one object a line), `.parquet` or `.arrow`, with the fields of one of
    `LAYOUTS`. `choices{label, text}` may be a list of pairs or a pair of lists; `question` may
    also hold `stem` and `choices`, as in CommonsenseQA's own files.

    PIQA and Social IQa have no ids, so a question's id is the number of its row, from 1 (unless
    there is an `id` after all). It is the same wherever the file is, in each of the three kinds
    of file, and it tells apart the rows that Social IQa repeats word for word, as a hash of the
    text would not.

    Raises `UserError` naming file and line (or row, from 1) at the first fault, such as an answer
    that is held back (PIQA's label -1, Social IQa's empty one).
    """
    # A pipe or a device of such a name would be read for ever.
    if path.suffix not in SOURCE_SUFFIXES or not path.is_file():
        raise UserError(f"{path} is not a data set; name one {', '.join(SOURCE_SUFFIXES)} file")
    rows = _json_lines(path) if path.suffix == ".jsonl" else _table_rows(path)
    placed: list[Placed] = []
    answers = []
    for number, (place, row) in enumerate(rows, start=1):
        question, answer = _labelled(place, row, number)
        placed.append((place, question))
        answers.append(answer)
    _check_ids(placed)
    return [question for _, question in placed], answers


# Splitting


@dataclass(frozen=True, slots=True)
class Split:
    """Questions with the index of the right choice of each, in one order."""

    questions: list[Question]
    answers: list[int]


def split(
    questions: Sequence[Question],
    answers: Sequence[int],
    *,
    train: int,
    calibration: int,
    test: int,
    seed: int,
    source: str = "data.source",
) -> dict[str, Split]:
    """Draw disjoint splits of the given sizes; return them under the names `SPLITS`.

    All questions stand in one seeded order; train is its front, calibration follows train, and
    test is its end, counted from the end. So train depends only on `train` and `seed`, and test
    only on `test` and `seed`; calibration moves with `train` and not with `test`; a larger train
    or test split holds the smaller one, train even as its first questions. (That all three stay
    put is impossible where they use up the source.) A question's place in the order comes from
    `seed` and its own id alone: the order of the source does not matter, and questions added to
    it leave the order of the others as it was.

    Raises `UserError` naming the sizes' keys when `source` holds too few questions.
    """
    sizes = {"train": train, "calibration": calibration, "test": test}
    if sum(sizes.values()) > len(questions):
        asked = " + ".join(f"data.{name}" for name, size in sizes.items() if size)
        raise UserError(
            f"{source} holds {len(questions)} questions, but {asked} is "
            f"{sum(sizes.values())}; lower them or name a larger source"
        )
    order = sorted(range(len(questions)), key=lambda index: _draw(seed, questions[index].id))
    places = {
        "train": order[:train],
        "calibration": order[train : train + calibration],
        "test": order[len(order) - test :],
    }
    return {
        name: Split([questions[i] for i in places[name]], [answers[i] for i in places[name]])
        for name in SPLITS
    }


def check_disjoint(source: Sequence[Question], test_source: Sequence[Question]) -> None:
    """Raise `UserError` when a question of `data.test_source` is in `data.source` as well."""
    shared = {question.id for question in source} & {question.id for question in test_source}
    if shared:
        raise UserError(
            f"data.source and data.test_source share {len(shared)} question ids, as "
            f"{min(shared)!r}; a test question must not be trained on: name disjoint sources"
        )


def _draw(seed: int, question_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{question_id}".encode()).digest()


# Rows of files


def _json_lines(path: Path) -> Iterator[Placed]:
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


def _table_rows(path: Path) -> Iterator[Placed]:
    import pyarrow

    number = 0
    try:
        for batch in _batches(path):
            # A stream is mapped as it is; offsets that lead out of it would end the process.
            batch.validate(full=True)
            for row in batch.to_pylist():
                number += 1
                yield f"{path.name}, row {number}", row
    # Values without a like in Python: a text that is no UTF-8, a date in the year 5,000,000.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path.name} cannot be read as {path.suffix[1:]} ({reason})") from None


def _batches(path: Path) -> Iterator[Any]:
    """Yield record batches of the columns that are needed, a part of the file at a time."""
    import pyarrow

    if path.suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            columns = _columns(path.name, file.schema_arrow.names)
            yield from file.iter_batches(columns=columns)
        return
    with pyarrow.memory_map(str(path)) as mapped, pyarrow.ipc.open_stream(mapped) as stream:
        columns = _columns(path.name, stream.schema.names)
        for batch in stream:
            yield batch.select(columns)


def _columns(place: str, present: Sequence[str]) -> list[str]:
    """Return which of a table's columns to read."""
    layout = _layout(place, present)
    lacking = [name for name in layout.fields if name not in present]
    if lacking:
        needed = ", ".join(layout.fields)
        raise UserError(f"{place} has no column {lacking[0]!r}; it needs {needed}")
    columns = [name for name in present if name == "id" or name in layout.fields]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise UserError(f"{place} has the column {twice[0]!r} twice; it needs one of each")
    return columns


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# Layouts of a row

Labelled = tuple[Question, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """How some data sets lay out a labelled question.

    A row is of the first of `LAYOUTS` whose `telling` field it has. `fields` are what a table
    needs. `read` takes a place and the row there, and returns the question and the index of the
    right choice; where `fields` has no `id`, the row is given one before.
    """

    sets: str
    telling: str
    fields: tuple[str, ...]
    read: Callable[[str, Mapping[str, Any]], Labelled]


def _read_own(place: str, row: Mapping[str, Any]) -> Labelled:
    question = _question(place, row)
    return question, _answer(place, row, len(question.choices))


def _read_commonsenseqa(place: str, row: Mapping[str, Any]) -> Labelled:
    body = row["question"]
    inner = body if isinstance(body, dict) else {"stem": body, "choices": row.get("choices")}
    labels, texts = _labels_and_texts(place, inner)
    return _keyed(place, row, "answerKey", inner.get("stem"), labels, texts)


def _read_openbookqa(place: str, row: Mapping[str, Any]) -> Labelled:
    labels, texts = _labels_and_texts(place, row)
    # What is no text is refused with the question.
    texts = [text.strip() if isinstance(text, str) else text for text in texts]
    return _keyed(place, row, "answerKey", _text(place, row, "question_stem"), labels, texts)


def _read_piqa(place: str, row: Mapping[str, Any]) -> Labelled:
    texts = [_text(place, row, name).strip() for name in ("sol1", "sol2")]
    return _keyed(place, row, "label", _text(place, row, "goal"), [0, 1], texts)


def _read_social_iqa(place: str, row: Mapping[str, Any]) -> Labelled:
    stem = " ".join(_text(place, row, name).strip() for name in ("context", "question"))
    texts = [_text(place, row, name).strip() for name in ("answerA", "answerB", "answerC")]
    return _keyed(place, row, "label", stem, ["1", "2", "3"], texts)


LAYOUTS = (
    Layout(
        "OpenBookQA",
        "question_stem",
        ("id", "question_stem", "choices", "answerKey"),
        _read_openbookqa,
    ),
    Layout("PIQA", "sol1", ("goal", "sol1", "sol2", "label"), _read_piqa),
    Layout(
        "Social IQa",
        "answerA",
        ("context", "question", "answerA", "answerB", "answerC", "label"),
        _read_social_iqa,
    ),
    Layout(
        "CommonsenseQA, ARC",
        "question",
        ("id", "question", "choices", "answerKey"),
        _read_commonsenseqa,
    ),
    Layout("your own", "stem", ("id", "stem", "choices", "answer"), _read_own),
)


def _labelled(place: str, row: Mapping[str, Any], number: int) -> Labelled:
    layout = _layout(place, row)
    return layout.read(place, row if "id" in layout.fields else {"id": str(number), **row})


def _layout(place: str, names: Container[str]) -> Layout:
    for layout in LAYOUTS:
        if layout.telling in names:
            return layout
    known = "; or ".join(f"{', '.join(layout.fields)} ({layout.sets})" for layout in LAYOUTS)
    raise UserError(f"{place} is of no known format; it needs the fields {known}")


# One row, checked


def _keyed(
    place: str,
    row: Mapping[str, Any],
    field: str,
    stem: Any,
    labels: Sequence[Any],
    texts: Sequence[Any],
) -> Labelled:
    """Return the question of these parts, and which of `labels` the row's `field` names."""
    question = _question(place, {"id": row.get("id"), "stem": stem, "choices": texts})
    key = _field(place, row, field)
    # JSON's true equals the label 1.
    if isinstance(key, bool) or labels.count(key) != 1:
        listed = ", ".join(map(str, labels))
        raise UserError(
            f"{place}: {field} {key!r} names no choice (or several); the choices are {listed}"
        )
    return question, labels.index(key)


def _labels_and_texts(place: str, row: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return choices' labels and texts from a list of pairs or a pair of lists."""
    choices = _field(place, row, "choices")
    if isinstance(choices, dict):
        labels, texts = _field(place, choices, "label"), _field(place, choices, "text")
    elif isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        labels = [_field(place, choice, "label") for choice in choices]
        texts = [_field(place, choice, "text") for choice in choices]
    else:
        raise UserError(f"{place}: choices must each have a label and a text")
    if not isinstance(labels, list) or not isinstance(texts, list) or len(labels) != len(texts):
        raise UserError(f"{place}: choices must have as many labels as texts")
    return labels, texts


def _question(place: str, row: Mapping[str, Any]) -> Question:
    choices = _field(place, row, "choices")
    if not isinstance(choices, list) or len(choices) < 2:
        raise UserError(f"{place}: choices must be a list of two texts or more")
    texts = [_checked_text(place, f"choice {i}", text) for i, text in enumerate(choices, start=1)]
    return Question(_text(place, row, "id"), _text(place, row, "stem"), tuple(texts))


def _answer(place: str, row: Mapping[str, Any], choices: int) -> int:
    answer = _field(place, row, "answer")
    # JSON's true is a Python int as well.
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < choices:
        raise UserError(
            f"{place}: answer {answer!r} names no choice; it must be an index from 0 to "
            f"{choices - 1}"
        )
    return answer


def _text(place: str, row: Mapping[str, Any], name: str) -> str:
    return _checked_text(place, name, _field(place, row, name))


def _checked_text(place: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        shown = reprlib.repr(value)
        raise UserError(f"{place}: {name} must be a text that is not blank (it is {shown})")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f"{place}: {name} holds half a surrogate pair, which is no character")
    return value


def _field(place: str, row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    if value is None:
        raise UserError(f"{place} lacks the field {name!r}; add it")
    return value


def _check_ids(placed: Iterable[tuple[str, Question]]) -> None:
    first: dict[str, str] = {}
    for place, question in placed:
        if question.id in first:
            raise UserError(
                f"{place}: the id {question.id!r} is that of {first[question.id]} already; "
                "each question needs an id of its own"
            )
        first[question.id] = place
