"""Retrain a pruned model at one learning rate and score it on the calibration split only."""

import math
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from regrow.distill.divergence import distillation_task
from regrow.distill.reader import open_record
from regrow.evaluate.accuracy import summary
from regrow.evaluate.predict import predict, read_part
from regrow.model.setup import open_model, read_trees
from regrow.retrain.cross_entropy import finetuning_task
from regrow.retrain.order import training_order
from regrow.retrain.trainer import train
from regrow.support.files import write_json
from regrow.support.params import read_params
from regrow.support.resume import Unfinished
from regrow.tasks.questions import read_labels


class Loss(StrEnum):
    """Which objective to train with."""

    FINETUNE = "finetune"
    DISTILL = "distill"


def main(
    loss: Annotated[Loss, typer.Option(help="cross-entropy or KL")],
    learning_rate: Annotated[float, typer.Option(help="the rate to try")],
    pruned: Annotated[Path, typer.Option(help="the pruned model's folder")],
    questions: Annotated[Path, typer.Option(help="the folder of question files")],
    labels: Annotated[Path, typer.Option(help="the folder of label files")],
    teacher_logits: Annotated[Path, typer.Option(help="the teacher's record")],
    train_size: Annotated[int, typer.Option(help="how many questions to train on")],
    seed: Annotated[int, typer.Option(help="which of them, and in what order")],
    metrics: Annotated[Path, typer.Option(help="JSON file to write")],
    log: Annotated[Path, typer.Option(help="a folder for the loss by step")],
    teacher: Annotated[
        Path | None, typer.Option(help="the teacher's folder; a whole record needs it")
    ] = None,
) -> None:
    """Retrain a pruned model at one learning rate and score it on the calibration split only."""
    params = read_params()
    model, tokenizer = open_model(pruned, params.compute, seed)
    asked, trees = read_trees(questions / "train.jsonl", tokenizer, params.prompt.format)
    if loss is Loss.FINETUNE:
        answers = read_labels(labels / "train.jsonl", asked)
        task = finetuning_task(trees, answers, params.finetune.positions)
    else:
        ids = [question.id for question in asked]
        record = open_record(teacher_logits, teacher, params.compute.dtype, params.compute.device)
        task = distillation_task(
            trees, ids, record, params.distill.temperature, params.distill.divergence
        )
    order = training_order(len(asked), train_size, params.training, seed)
    # A try is not worth a state of its own; it starts anew.
    with TemporaryDirectory() as scratch:
        state = Unfinished(Path(scratch), math.inf)
        train(model, task, order, learning_rate, params.training, params.compute, seed, log, state)
    held_out = read_part(questions, labels, "calibration")
    found = predict(model, tokenizer, [held_out], params.prompt.format)
    write_json(metrics, summary(found))
