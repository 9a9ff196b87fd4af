"""Which choice a model ranks first."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Normalisation = Literal["raw", "per_character"]


def padded(rows: Sequence[Sequence[float]], fill: float) -> NDArray[np.float64]:
    """Rows of unequal length → one (rows, longest) array, filled up at the end with `fill`."""
    longest = max((len(row) for row in rows), default=0)
    array = np.full((len(rows), longest), fill, dtype=np.float64)
    for index, row in enumerate(rows):
        array[index, : len(row)] = row
    return array


def choice_scores(
    log_probs: Sequence[Sequence[float]],
    characters: Sequence[Sequence[int]],
    normalisation: Normalisation,
) -> NDArray[np.float64]:
    """What decides between choices: (rows, most choices), -inf where a question has fewer.

    `raw`: the choice's summed log-probability; `per_character`: that over its characters.
    """
    scores = padded(log_probs, -np.inf)
    return scores / padded(characters, 1.0) if normalisation == "per_character" else scores


def first_ranked(
    log_probs: Sequence[Sequence[float]],
    characters: Sequence[Sequence[int]],
    normalisation: Normalisation,
) -> NDArray[np.intp]:
    """As `chosen`, from each choice's summed log-probability and number of characters."""
    scores = choice_scores(log_probs, characters, normalisation)
    if not scores.size:
        return np.zeros(len(log_probs), dtype=np.intp)
    best: NDArray[np.intp] = np.argmax(scores, axis=1)
    return best
