"""From a model and questions to predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regrow.evaluate.predictions import TRANSFER, Predictions
from regrow.model.folders import count_parameters
from regrow.model.mlps import count_mlp_parameters
from regrow.model.scoring import score_choices
from regrow.model.trees import build_trees
from regrow.support.resume import Unfinished
from regrow.tasks.prompts import Format, continuations
from regrow.tasks.questions import Question, read_labels, read_questions


@dataclass(frozen=True, slots=True)
class Part:
    """The questions and gold choices of one split."""

    split: str
    questions: Sequence[Question]
    answers: Sequence[int]


def read_part(questions: Path, labels: Path, split: str) -> Part:
    """One of the study's own splits."""
    asked = read_questions(questions / f"{split}.jsonl")
    return Part(split, asked, read_labels(labels / f"{split}.jsonl", asked))


def read_transfer(folder: Path, name: str) -> Part:
    """Another task's set; its ids get the set's name in front, for two sets may share ids."""
    found = read_part(folder / "questions", folder / "labels", name)
    split = f"{TRANSFER}{name}"
    renamed = [replace(question, id=f"{split}/{question.id}") for question in found.questions]
    return Part(split, renamed, found.answers)


def predict(
    model: Any,
    tokenizer: Any,
    parts: Sequence[Part],
    prompt_format: Format,
    state: Unfinished | None = None,
) -> Predictions:
    """Score every choice of every question of `parts`."""
    every = [question for part in parts for question in part.questions]
    trees = build_trees(tokenizer, every, prompt_format)
    # Before the model runs: FSDP2 leaves a tied matrix in two places until the next step.
    parameters, mlp_parameters = count_parameters(model), count_mlp_parameters(model)
    return Predictions(
        ids=[question.id for question in every],
        splits=[part.split for part in parts for _ in part.questions],
        answers=[answer for part in parts for answer in part.answers],
        log_probs=score_choices(model, trees, state=state),
        tokens=[[len(branch) for branch in tree.branches] for tree in trees],
        characters=[
            [len(text) - 1 for text in continuations(question, prompt_format)] for question in every
        ],
        parameters=parameters,
        mlp_parameters=mlp_parameters,
    )
