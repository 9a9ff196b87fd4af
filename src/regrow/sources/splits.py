"""Drawing disjoint splits of a data set."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from regrow.support.errors import UserError
from regrow.tasks.questions import Question


class Labelled(NamedTuple):
    """Questions with the index of the right choice of each, in one order."""

    questions: list[Question]
    answers: list[int]


def split(
    source: Labelled, sizes: Mapping[str, int], seed: int, key: str = "data.source"
) -> list[Labelled]:
    """Draw disjoint splits of `source`, one for each of `sizes`, which are by parameter.

    All questions stand in one order, by a hash of `seed` and their ids, so that the order of the
    source does not matter. The last split is its end, the others follow each other from its front:
    train and test depend on their own sizes and `seed` alone, calibration moves with train, and a
    larger train or test split holds the smaller one, train even as its first questions.

    Raises `UserError` naming `key` and the sizes' keys when there are too few questions.
    """
    count = len(source.questions)
    if sum(sizes.values()) > count:
        asked = " + ".join(name for name, size in sizes.items() if size)
        raise UserError(
            f"{key} holds {count} questions, but {asked} is {sum(sizes.values())}; lower them or "
            "name a larger source"
        )

    def place(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\n{source.questions[index].id}".encode()).digest()

    order = sorted(range(count), key=place)
    questions = [source.questions[index] for index in order]
    answers = [source.answers[index] for index in order]
    *front, last = sizes.values()
    starts = [sum(front[:part]) for part in range(len(front))] + [count - last]
    parts = [slice(start, start + size) for start, size in zip(starts, sizes.values(), strict=True)]
    return [Labelled(questions[part], answers[part]) for part in parts]


def check_disjoint(source: Labelled, test_source: Labelled) -> None:
    """Raise `UserError` when a question of `data.test_source` is in `data.source` as well."""
    ids = [{question.id for question in each.questions} for each in (source, test_source)]
    if shared := ids[0] & ids[1]:
        raise UserError(
            f"data.source and data.test_source share {len(shared)} question ids, as "
            f"{min(shared)!r}; a test question must not be trained on: name disjoint sources"
        )
