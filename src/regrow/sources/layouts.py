"""How data sets lay out a labelled question: one function each.

A function's parameters are the fields of a row that it needs; one that is a `str` must be a text
that is not blank, and one with a default may be absent. It returns the stem, the choices (checked
by the caller) and the index of the right one, or raises `ValueError` with what is wrong.
"""

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from functools import cache
from inspect import Parameter, signature
from string import ascii_uppercase
from typing import Any

from regrow.support.errors import UserError
from regrow.support.schema import Columns
from regrow.support.tables import Table
from regrow.tasks.questions import Question, field_at, question_at, text_at

Parts = tuple[Any, Any, int]
LAYOUTS: Table[Callable[..., Parts]] = Table()


@LAYOUTS.entry
def openbookqa(question_stem: str, choices: Any, answerKey: Any) -> Parts:
    """OpenBookQA"""
    labels, texts = _labels_and_texts(choices)
    # What is no text is refused with the question.
    texts = [text.strip() if isinstance(text, str) else text for text in texts]
    return question_stem, texts, _chosen("answerKey", answerKey, labels)


@LAYOUTS.entry
def piqa(goal: str, sol1: str, sol2: str, label: Any) -> Parts:
    """PIQA"""
    return goal, [sol1.strip(), sol2.strip()], _chosen("label", label, [0, 1])


@LAYOUTS.entry
def social_iqa(
    context: str, question: str, answerA: str, answerB: str, answerC: str, label: Any
) -> Parts:
    """Social IQa"""
    stem = f"{context.strip()} {question.strip()}"
    choices = [text.strip() for text in (answerA, answerB, answerC)]
    return stem, choices, _chosen("label", label, ["1", "2", "3"])


@LAYOUTS.entry
def commonsenseqa(question: Any, answerKey: Any, choices: Any = None) -> Parts:
    """CommonsenseQA, ARC"""
    # CommonsenseQA's own files hold the choices in the question.
    inner = question if isinstance(question, dict) else {"stem": question, "choices": choices}
    labels, texts = _labels_and_texts(inner.get("choices"))
    return inner.get("stem"), texts, _chosen("answerKey", answerKey, labels)


@LAYOUTS.entry
def own(stem: str, choices: Any, answer: Any) -> Parts:
    """your own"""
    return stem, choices, _chosen("answer", answer, range(len(_checked_list(choices, "choices"))))


def labelled(
    place: str, row: Mapping[str, Any], number: str, columns: Columns | None = None
) -> tuple[Question, int]:
    """Read the row at `place`: its question, and the index of the right choice.

    `number` is the id of a row that has none; `columns` says which field holds what, where the row
    is of none of `LAYOUTS`. Raises `UserError` where a field is lacking or wrong.
    """
    try:
        if columns is None:
            layout = layout_of(place, row)
            identity = row.get("id")
            stem, choices, answer = layout(**dict(_values(place, row, layout)))
        else:
            identity = None if columns.id is None else field_at(place, row, columns.id)
            stem, choices, answer = _of_columns(place, row, columns)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    if identity is None:
        identity = number
    elif type(identity) is int:
        identity = str(identity)
    return question_at(place, {"id": identity, "stem": stem, "choices": choices}), answer


def fields_of(columns: Columns | None) -> Collection[str | None]:
    """The fields that a row is read from: those that are named, or of any of `LAYOUTS`."""
    if columns is None:
        return {"id"}.union(*(_parameters(layout) for layout in LAYOUTS.values()))
    choices = [columns.choices] if isinstance(columns.choices, str) else columns.choices
    return {columns.id, columns.stem, *choices, columns.answer}


def layout_of(place: str, names: Container[str]) -> Callable[..., Parts]:
    """The first of `LAYOUTS` whose needed fields are all there, else whose first field is."""
    layouts = LAYOUTS.values()
    whole = (each for each in layouts if all(name in names for name in _needed(each)))
    begun = (each for each in layouts if _needed(each)[0] in names)
    if found := next(whole, None) or next(begun, None):
        return found
    known = "; or ".join(f"{', '.join(_parameters(each))} ({each.__doc__})" for each in layouts)
    raise UserError(
        f"{place} is of no known format; name its columns in `columns` beside its source, or give "
        f"it the fields {known}"
    )


@cache
def _parameters(layout: Callable[..., Parts]) -> Mapping[str, Parameter]:
    return signature(layout).parameters


@cache
def _needed(layout: Callable[..., Parts]) -> list[str]:
    return [name for name, field in _parameters(layout).items() if field.default is Parameter.empty]


def _values(
    place: str, row: Mapping[str, Any], layout: Callable[..., Parts]
) -> Iterator[tuple[str, Any]]:
    for name, field in _parameters(layout).items():
        if field.annotation is str:
            yield name, text_at(place, row, name)
        elif name in _needed(layout):
            yield name, field_at(place, row, name)
        elif name in row:
            yield name, row[name]


def _of_columns(place: str, row: Mapping[str, Any], columns: Columns) -> Parts:
    """The parts of a row whose columns are named; an answer is an index, a letter or a text."""
    if isinstance(columns.choices, str):
        choices = _checked_list(field_at(place, row, columns.choices), columns.choices)
    else:
        choices = [field_at(place, row, name) for name in columns.choices]
    key, places = field_at(place, row, columns.answer), range(len(choices))
    names = places, [str(index) for index in places], ascii_uppercase[: len(choices)], choices
    return field_at(place, row, columns.stem), choices, _chosen(columns.answer, key, *names)


def _chosen(field: str, key: Any, *labels: Sequence[Any]) -> int:
    """The index of the one choice that the row's `field` names, by its label of any kind."""
    pairs = [pair for of_kind in labels for pair in enumerate(of_kind)]
    # JSON's true equals the label 1.
    found = {index for index, label in pairs if type(label) is type(key) and label == key}
    if len(found) != 1:
        listed = ", ".join(dict.fromkeys(str(label) for _, label in pairs))
        raise ValueError(f"{field} {key!r} names no choice (or several); the choices are {listed}")
    return found.pop()


def _labels_and_texts(choices: Any) -> tuple[list[Any], list[Any]]:
    """Return choices' labels and texts from a list of pairs or a pair of lists."""
    if choices is None:
        raise ValueError("there are no choices; add them")
    pairs = [choices] if isinstance(choices, dict) else _checked_list(choices, "choices")
    if not all(isinstance(pair, dict) and {"label", "text"} <= pair.keys() for pair in pairs):
        raise ValueError("choices must each have a label and a text")
    if isinstance(choices, dict):
        labels, texts = choices["label"], choices["text"]
    else:
        labels, texts = ([pair[name] for pair in pairs] for name in ("label", "text"))
    if not isinstance(labels, list) or not isinstance(texts, list) or len(labels) != len(texts):
        raise ValueError("choices must have as many labels as texts")
    return labels, texts


def _checked_list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{field} must be a list of two texts or more")
    return value
