"""The log-probability of each choice by the runtime itself."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from regrow.device.runtime import Row, decode, new_context, open_model
from regrow.device.tokens import Asked
from regrow.evaluate.predictions import Predictions
from regrow.support.errors import UserError

STEP = 64  # a context's size is a multiple of this many tokens
# Between F32 here and in transformers: nats, and a share of the score, for a damaged model's scores
# of -60 nats are rounded that much more roughly by both (the runtime's are the nearer to float64).
TOLERANCE, RELATIVE = 1e-3, 1e-4


def score_file(path: Path, asked: Sequence[Asked], workers: int = 1) -> list[list[float]]:
    """Summed natural-log probability of every choice's tokens given its context.

    One question is decoded at a time, by one thread: its context once, as part of all sequences,
    and each choice in a sequence of its own. So a score hangs neither on the other questions nor
    on `workers`, which is how many questions are scored side by side.

    Raises:
        UserError: llama.cpp cannot load the file, or splits a text into other tokens.
    """
    model = open_model(path)
    check_tokens(model, asked, path)
    longest = max(len(_rows(question)) for question in asked)
    size = -(-max(longest, 1) // STEP) * STEP
    sequences = max(len(question.branches) for question in asked)
    free: SimpleQueue[Any] = SimpleQueue()
    for _ in range(workers):
        free.put(new_context(model, 1, size, sequences))

    def one(question: Asked) -> list[float]:
        context = free.get()
        try:
            return _score(context, question, sequences)
        finally:
            free.put(context)

    with ThreadPoolExecutor(workers) as pool:  # llama.cpp decodes without Python's lock
        return list(pool.map(one, asked))


def check_tokens(model: Any, asked: Sequence[Asked], path: Path) -> None:
    """Raise `UserError` unless the runtime gives every text the tokens of the tokenizer."""
    vocabulary = model.get_vocab()
    for question in asked:
        for text, branch in zip(question.texts, question.branches, strict=True):
            found = vocabulary.tokenize(text, add_special=True, parse_special=True)
            if list(found) != [*question.context, *branch]:
                raise UserError(
                    f"{path} gives question {question.id} other tokens than its tokenizer does "
                    f"({text!r}), so nothing is scored; its pre-tokenizer or vocabulary is that of "
                    "another model"
                )


def check_scores(
    scores: Sequence[Sequence[float]], asked: Sequence[Asked], study: Predictions, path: Path
) -> None:
    """Raise `UserError` where a file's F32 scores are not those of transformers.

    scores: of the first questions of `asked`. study: transformers' predictions of the same model.
    """
    known = dict(zip(study.ids, study.log_probs, strict=True))
    for question, found in zip(asked, scores, strict=False):
        if not np.allclose(found, known[question.id], rtol=RELATIVE, atol=TOLERANCE):
            gap = float(np.abs(np.subtract(found, known[question.id])).max())
            raise UserError(
                f"{path} gives question {question.id} log-probabilities that differ by {gap:.2g} "
                f"nats from transformers' (allowed is {TOLERANCE:g}), so it is not the same model; "
                "where the study's is in another dtype than float32, set check to 0"
            )


def predictions(
    asked: Sequence[Asked], scores: Sequence[Sequence[float]], study: Predictions
) -> Predictions:
    """Scores in the format of the study's predictions, whose counts of parameters they take."""
    return Predictions(
        ids=[question.id for question in asked],
        splits=[question.split for question in asked],
        answers=[question.answer for question in asked],
        log_probs=scores,
        tokens=[[len(branch) for branch in question.branches] for question in asked],
        characters=[question.characters for question in asked],
        parameters=study.parameters,
        mlp_parameters=study.mlp_parameters,
    )


def _rows(question: Asked) -> list[Row]:
    """The context in all sequences, then each branch, but for its last token, in its own."""
    stem = len(question.context)
    every = list(range(len(question.branches)))
    rows: list[Row] = [
        (token, place, every, place == stem - 1) for place, token in enumerate(question.context)
    ]
    for sequence, branch in enumerate(question.branches):
        rows += [(token, stem + i, [sequence], True) for i, token in enumerate(branch[:-1])]
    return rows


def _score(context: Any, question: Asked, sequences: int) -> list[float]:
    context.kv_cache_clear(False)
    log_probs = decode(context, _rows(question), sequences)
    first, place = log_probs(len(question.context) - 1), len(question.context)
    scores = []
    for branch in question.branches:
        total = float(first[branch[0]])
        for token in branch[1:]:
            total += float(log_probs(place)[token])
            place += 1
        scores.append(total)
    return scores
