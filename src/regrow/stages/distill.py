"""Retrain a pruned model with KL from the teacher's recorded logits, without labels (L2PSD)."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.checkpoints import load_model, load_tokenizer, save_model
from regrow.params import read_params
from regrow.questions import read_questions
from regrow.resume import unfinished
from regrow.runtime import fix_runtime
from regrow.teacher_logits import open_record
from regrow.training import distillation_task, question_order, train
from regrow.trees import build_trees


def main(
    pruned: Annotated[Path, typer.Option(help="the pruned model's folder")],
    questions: Annotated[Path, typer.Option(help="train questions; no labels")],
    teacher_logits: Annotated[Path, typer.Option(help="the teacher's record")],
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
    fix_runtime(params.compute, seed)
    model = load_model(pruned, params.compute.dtype, params.compute.device)
    tokenizer = load_tokenizer(pruned)
    asked = read_questions(questions)
    trees = build_trees(tokenizer, asked, params.prompt.format)
    ids = [question.id for question in asked]
    record = open_record(teacher_logits, teacher, params.compute.dtype, params.compute.device)
    task = distillation_task(trees, ids, record, params.distill.temperature)
    order = question_order(len(asked), train_size, params.training.epochs, seed)
    rate = params.distill.learning_rate
    settings = [params.compute, params.prompt.format, params.training, params.distill.temperature]
    inputs = [pruned, questions, teacher_logits]
    interval = params.resume.interval
    with unfinished(out, inputs, [*settings, rate, train_size, seed], interval) as state:
        train(model, task, order, rate, params.training, seed, log, state)
        save_model(model, tokenizer, out)
