"""How data sets lay out a labelled question: one function and one line of `LAYOUTS` each."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regrow.support.errors import UserError
from regrow.tasks.questions import Question, answer_at, field_at, question_at, text_at

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
    question = question_at(place, row)
    return question, answer_at(place, row, len(question.choices))


def _read_commonsenseqa(place: str, row: Mapping[str, Any]) -> Labelled:
    body = row["question"]
    inner = body if isinstance(body, dict) else {"stem": body, "choices": row.get("choices")}
    labels, texts = _labels_and_texts(place, inner)
    return _keyed(place, row, "answerKey", inner.get("stem"), labels, texts)


def _read_openbookqa(place: str, row: Mapping[str, Any]) -> Labelled:
    labels, texts = _labels_and_texts(place, row)
    # What is no text is refused with the question.
    texts = [text.strip() if isinstance(text, str) else text for text in texts]
    return _keyed(place, row, "answerKey", text_at(place, row, "question_stem"), labels, texts)


def _read_piqa(place: str, row: Mapping[str, Any]) -> Labelled:
    texts = [text_at(place, row, name).strip() for name in ("sol1", "sol2")]
    return _keyed(place, row, "label", text_at(place, row, "goal"), [0, 1], texts)


def _read_social_iqa(place: str, row: Mapping[str, Any]) -> Labelled:
    stem = " ".join(text_at(place, row, name).strip() for name in ("context", "question"))
    texts = [text_at(place, row, name).strip() for name in ("answerA", "answerB", "answerC")]
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


def labelled(place: str, row: Mapping[str, Any], number: int) -> Labelled:
    layout = layout_of(place, row)
    return layout.read(place, row if "id" in layout.fields else {"id": str(number), **row})


def layout_of(place: str, names: Container[str]) -> Layout:
    for layout in LAYOUTS:
        if layout.telling in names:
            return layout
    known = "; or ".join(f"{', '.join(layout.fields)} ({layout.sets})" for layout in LAYOUTS)
    raise UserError(f"{place} is of no known format; it needs the fields {known}")


def _keyed(
    place: str,
    row: Mapping[str, Any],
    field: str,
    stem: Any,
    labels: Sequence[Any],
    texts: Sequence[Any],
) -> Labelled:
    """Return the question of these parts, and which of `labels` the row's `field` names."""
    question = question_at(place, {"id": row.get("id"), "stem": stem, "choices": texts})
    key = field_at(place, row, field)
    # JSON's true equals the label 1.
    if isinstance(key, bool) or labels.count(key) != 1:
        listed = ", ".join(map(str, labels))
        raise UserError(
            f"{place}: {field} {key!r} names no choice (or several); the choices are {listed}"
        )
    return question, labels.index(key)


def _labels_and_texts(place: str, row: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return choices' labels and texts from a list of pairs or a pair of lists."""
    choices = field_at(place, row, "choices")
    if isinstance(choices, dict):
        labels, texts = field_at(place, choices, "label"), field_at(place, choices, "text")
    elif isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        labels = [field_at(place, choice, "label") for choice in choices]
        texts = [field_at(place, choice, "text") for choice in choices]
    else:
        raise UserError(f"{place}: choices must each have a label and a text")
    if not isinstance(labels, list) or not isinstance(texts, list) or len(labels) != len(texts):
        raise UserError(f"{place}: choices must have as many labels as texts")
    return labels, texts
