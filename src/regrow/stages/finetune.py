"""Retrain a pruned model with cross-entropy on labelled answers (L2PFT)."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.model.folders import load_tokenizer, save_model
from regrow.model.runtime import fix_runtime
from regrow.model.setup import read_trees
from regrow.retrain.cross_entropy import finetuning_task
from regrow.retrain.gradual import retrain
from regrow.retrain.order import training_order
from regrow.support.params import read_params
from regrow.support.resume import unfinished
from regrow.support.schema import rate_of
from regrow.tasks.questions import read_labels


def main(
    pruned: Annotated[Path, typer.Option(help="the pruned model's folder")],
    questions: Annotated[Path, typer.Option(help="train questions")],
    labels: Annotated[Path, typer.Option(help="their labels")],
    score: Annotated[str, typer.Option(help="by which it was pruned; the rate is that of score")],
    sparsity: Annotated[float, typer.Option(help="and sparsity")],
    train_size: Annotated[int, typer.Option(help="how many of them to train on")],
    seed: Annotated[int, typer.Option(help="which of them, and in what order")],
    out: Annotated[Path, typer.Option(help="the retrained model's folder")],
    log: Annotated[Path, typer.Option(help="a folder for the loss by step")],
) -> None:
    params = read_params()
    compute, positions = params.compute, params.finetune.positions
    fix_runtime(compute, seed)
    tokenizer = load_tokenizer(pruned)
    asked, trees = read_trees(questions, tokenizer, params.prompt.format)
    task = finetuning_task(trees, read_labels(labels, asked), positions)
    order = training_order(len(asked), train_size, params.training, seed)
    rate = rate_of(params.finetune.learning_rate, score, sparsity)
    inputs = [pruned, questions, labels]
    made_with = [compute, params.prompt.format, params.training, positions, rate]
    with unfinished(out, inputs, [*made_with, train_size, seed], params.resume.interval) as state:
        given = (task, order, rate, params.training, compute, seed, log, state)
        save_model(retrain(pruned, trees, *given), tokenizer, out)
