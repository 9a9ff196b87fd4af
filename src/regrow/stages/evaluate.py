"""Score a model's choices on the calibration and test questions, and on other tasks' sets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from regrow.accuracy import summary
from regrow.checkpoints import count_parameters, load_model, load_tokenizer
from regrow.files import write_json
from regrow.params import read_params
from regrow.predictions import SPLITS, TRANSFER, Predictions, write_predictions
from regrow.prompts import Format, continuations
from regrow.pruning import count_mlp_parameters
from regrow.questions import Question, read_labels, read_questions
from regrow.resume import Unfinished, unfinished
from regrow.runtime import fix_runtime
from regrow.scoring import score_choices
from regrow.trees import build_trees


def main(
    model: Annotated[Path, typer.Option(help="the model's folder")],
    questions: Annotated[Path, typer.Option(help="the folder of question files")],
    labels: Annotated[Path, typer.Option(help="the folder of label files")],
    transfer: Annotated[Path, typer.Option(help="the folder of other tasks' sets")],
    predictions: Annotated[Path, typer.Option(help="parquet file to write")],
    metrics: Annotated[Path, typer.Option(help="JSON file to write")],
) -> None:
    """Score a model's choices on the calibration and test questions, and on other tasks' sets."""
    params = read_params()
    fix_runtime(params.compute, 0)
    scored = load_model(model, params.compute.dtype, params.compute.device)
    tokenizer = load_tokenizer(model)
    parts = [read_part(questions, labels, split) for split in SPLITS]
    for path in sorted(transfer.glob("questions/*.jsonl")):
        parts.append(read_transfer(transfer, path.stem))
    inputs, made_with = [model, questions, labels, transfer], [params.compute, params.prompt.format]
    with unfinished(predictions, inputs, made_with, params.resume.interval) as state:
        found = predict(scored, tokenizer, parts, params.prompt.format, state)
        write_predictions(predictions, found)
        write_json(metrics, summary(found))


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
    return Predictions(
        ids=[question.id for question in every],
        splits=[part.split for part in parts for _ in part.questions],
        answers=[answer for part in parts for answer in part.answers],
        log_probs=score_choices(model, trees, state=state),
        tokens=[[len(branch) for branch in tree.branches] for tree in trees],
        characters=[
            [len(text) - 1 for text in continuations(question, prompt_format)] for question in every
        ],
        parameters=count_parameters(model),
        mlp_parameters=count_mlp_parameters(model),
    )
