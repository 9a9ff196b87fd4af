"""Retrain a pruned model with KL from the teacher's recorded logits, without labels (L2PSD)."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.distill.divergence import distillation_task
from regrow.distill.reader import open_record
from regrow.model.folders import save_model
from regrow.model.setup import open_model, read_trees
from regrow.retrain.order import training_order
from regrow.retrain.trainer import train
from regrow.support.params import read_params
from regrow.support.resume import unfinished
from regrow.support.schema import rate_of


def main(
    pruned: Annotated[Path, typer.Option(help="the pruned model's folder")],
    questions: Annotated[Path, typer.Option(help="train questions; no labels")],
    teacher_logits: Annotated[Path, typer.Option(help="the teacher's record")],
    score: Annotated[str, typer.Option(help="by which it was pruned; the rate is that of score")],
    sparsity: Annotated[float, typer.Option(help="and sparsity")],
    train_size: Annotated[int, typer.Option(help="how many questions to train on")],
    seed: Annotated[int, typer.Option(help="which of them, and in what order")],
    out: Annotated[Path, typer.Option(help="the retrained model's folder")],
    log: Annotated[Path, typer.Option(help="a folder for the loss by step")],
    teacher: Annotated[
        Path | None, typer.Option(help="the teacher's folder; a whole record needs it")
    ] = None,
) -> None:
    """Retrain a pruned model with KL from the teacher's recorded logits (L2PSD)."""
    params = read_params()
    model, tokenizer = open_model(pruned, params.compute, seed)
    asked, trees = read_trees(questions, tokenizer, params.prompt.format)
    ids = [question.id for question in asked]
    record = open_record(teacher_logits, teacher, params.compute.dtype, params.compute.device)
    task = distillation_task(
        trees, ids, record, params.distill.temperature, params.distill.divergence
    )
    order = training_order(len(asked), train_size, params.training, seed)
    rate = rate_of(params.distill.learning_rate, score, sparsity)
    settings = [params.compute, params.prompt.format, params.training]
    inputs = [pruned, questions, teacher_logits]
    interval = params.resume.interval
    with unfinished(
        out,
        inputs,
        [*settings, params.distill.temperature, params.distill.divergence, rate, train_size, seed],
        interval,
    ) as state:
        train(model, task, order, rate, params.training, params.compute, seed, log, state)
        save_model(model, tokenizer, out)
