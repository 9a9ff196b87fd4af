"""Which questions a training reads, and in what order."""

import numpy as np

from regrow.support.errors import UserError
from regrow.support.schema import Training


def training_order(questions: int, train_size: int, settings: Training, seed: int) -> list[int]:
    """As `question_order`, for so many epochs or steps as a training has."""
    if settings.steps is None:
        return question_order(questions, train_size, settings.epochs, seed)
    read = settings.steps * settings.batch_size
    return question_order(questions, train_size, -(-read // train_size), seed)[:read]


def question_order(questions: int, train_size: int, epochs: int, seed: int) -> list[int]:
    """Places of the questions to train on, epoch after epoch.

    The first `train_size` of one permutation a seed, so that the smaller of two train sizes is a
    subset of the larger; every later epoch shuffles them anew.
    """
    if train_size > questions:
        raise UserError(
            f"the train split holds {questions} questions, too few for a train size of "
            f"{train_size}; lower sweep.train_size or raise data.train"
        )
    subset = _stream(seed, 0).permutation(questions)[:train_size]
    order = list(subset)
    for epoch in range(1, epochs):
        order += list(_stream(seed, epoch).permutation(subset))
    return [int(place) for place in order]


def _stream(seed: int, epoch: int) -> np.random.Generator:
    # The last number keeps it apart from the random scores' stream (pruning.py). It is not zero,
    # for NumPy takes [seed, 0] and [seed] for the same seed.
    return np.random.default_rng([seed, epoch, 1])
