"""Retrain a pruned model with cross-entropy on labelled answers (L2PFT)."""

from pathlib import Path

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
    pruned: Path,
    questions: Path,
    labels: Path,
    score: str,
    sparsity: float,
    train_size: int,
    seed: int,
    out: Path,
    log: Path,
) -> None:
    """Write the model in --pruned, retrained on so many --questions and their --labels, to --out.

    --seed says which questions and in what order, --score and --sparsity at which rate; the loss by
    step goes to --log.
    """
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
