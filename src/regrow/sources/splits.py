"""Drawing disjoint splits of a data set."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from regrow.support.errors import UserError
from regrow.tasks.questions import SPLITS, Question


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
