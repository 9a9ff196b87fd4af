"""One model's plain numbers from its predictions: accuracy, gold NLL, and the baselines.

No resampling here: `evaluate` imports this module, and must not rerun when the statistics change.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from regrow.evaluate.predictions import SPLITS, Predictions
from regrow.evaluate.ranking import Normalisation, choice_scores, first_ranked
from regrow.support.files import rounded


def chosen(predictions: Predictions, normalisation: Normalisation) -> NDArray[np.intp]:
    """The index of the choice that the model ranks first, for each of n questions: shape (n,).

    `raw` ranks by summed log-probability; `per_character` by that over the choice's characters
    (Gu et al. 2025, "OLMES", arXiv 2406.08446, section 3.3), the primary metric of AI2's cloze
    CommonsenseQA (`acc_per_char`). Of choices that tie, the first is chosen: scores are equal to
    the last bit where a choice stands twice, and hardly elsewhere.
    """
    return first_ranked(predictions.log_probs, predictions.characters, normalisation)


def right(predictions: Predictions, normalisation: Normalisation) -> NDArray[np.float64]:
    """1 where the model chooses the gold choice and 0 elsewhere: shape (n,)."""
    answers = np.asarray(predictions.answers, dtype=np.intp)
    return np.where(chosen(predictions, normalisation) == answers, 1.0, 0.0)


def log_distribution(predictions: Predictions, normalisation: Normalisation) -> NDArray[np.float64]:
    """The model's log-distribution over each question's choices, in nats: (n, most choices).

    The softmax of the scores that decide between the choices, so that the likeliest choice is the
    chosen one. With `raw` it is the probability of each choice given that the answer is one of
    them; per-character scores are no log-probabilities, and their softmax is one by decree. Where
    a question has fewer choices, the rest is -inf.
    """
    scores = choice_scores(predictions.log_probs, predictions.characters, normalisation)
    if not scores.size:
        return scores
    distribution: NDArray[np.float64] = log_softmax(scores, axis=1)
    return distribution


def gold_nll(predictions: Predictions, normalisation: Normalisation) -> NDArray[np.float64]:
    """Minus the log-probability of the gold choice among the choices, in nats: shape (n,).

    A model that knows nothing scores ln(number of choices), 1.609 for five.
    """
    answers = np.asarray(predictions.answers, dtype=np.intp)
    logs = log_distribution(predictions, normalisation)
    return -logs[np.arange(len(predictions)), answers]


def chance(predictions: Predictions) -> NDArray[np.float64]:
    """The probability that a uniform guess is right, 1 / choices: shape (n,)."""
    return np.array([1 / len(row) for row in predictions.log_probs], dtype=np.float64)


def longest_choice(predictions: Predictions) -> NDArray[np.float64]:
    """How often the choice of most characters is the gold one: shape (n,).

    1 or 0; of m choices that are equally long, one is taken at random, which makes 1 / m.
    """
    shares = []
    for lengths, answer in zip(predictions.characters, predictions.answers, strict=True):
        longest = max(lengths)
        shares.append((lengths[answer] == longest) / list(lengths).count(longest))
    return np.array(shares, dtype=np.float64)


def summary(predictions: Predictions) -> dict[str, float]:
    """The flat numbers of `metrics/evaluate/*.json`, for each split that holds a question.

    `SPLIT.accuracy_per_character` and `SPLIT.accuracy_raw` are fractions, `SPLIT.gold_nll` is in
    nats a question, and the model's `parameters` and `mlp_parameters` are counts.
    """
    numbers: dict[str, float] = {}
    for split in dict.fromkeys((*reversed(SPLITS), *predictions.splits)):
        part = predictions.of_split(split)
        if len(part):
            numbers[f"{split}.accuracy_per_character"] = mean(right(part, "per_character"))
            numbers[f"{split}.accuracy_raw"] = mean(right(part, "raw"))
            numbers[f"{split}.gold_nll"] = mean(gold_nll(part, "raw"))
            numbers[f"{split}.questions"] = len(part)
    numbers["parameters"] = predictions.parameters
    numbers["mlp_parameters"] = predictions.mlp_parameters
    return numbers


def mean(values: NDArray[np.float64]) -> float:
    """The mean to `FLOAT_DIGITS` significant digits."""
    return rounded(float(values.mean()))
