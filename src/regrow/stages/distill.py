"""Retrain a pruned model with KL from the teacher's recorded logits (L2PSD)."""

from functools import partial
from pathlib import Path

from regrow.distill.divergence import distillation_task
from regrow.distill.reader import Record
from regrow.model.folders import load_tokenizer, save_model
from regrow.model.forward import read_output_layer
from regrow.model.runtime import fix_runtime
from regrow.model.setup import read_trees
from regrow.retrain.gradual import retrain
from regrow.retrain.order import training_order
from regrow.support import ranks
from regrow.support.params import read_params
from regrow.support.resume import unfinished
from regrow.support.schema import rate_of
from regrow.tasks.questions import read_labels


def main(
    pruned: Path,
    questions: Path,
    labels: Path,
    teacher_logits: Path,
    teacher: Path,
    score: str,
    sparsity: float,
    train_size: int,
    seed: int,
    out: Path,
    log: Path,
) -> None:
    """Write the model in --pruned, retrained on so many --questions, to --out.

    --seed says which questions and in what order, --score and --sparsity at which rate; the loss by
    step goes to --log. --labels are read where distill.branches is gold.
    """
    params = read_params()
    compute, settings = params.compute, params.distill
    fix_runtime(compute, seed)
    tokenizer = load_tokenizer(pruned)
    asked, trees = read_trees(questions, tokenizer, params.prompt.format)
    read = [labels] if settings.branches == "gold" else []
    output = partial(read_output_layer, teacher, compute.dtype, ranks.local_device(compute.device))
    task = distillation_task(
        trees,
        [question.id for question in asked],
        Record(teacher_logits, output),
        settings.temperature,
        settings.divergence,
        read_labels(labels, asked) if read else None,
    )
    order = training_order(len(asked), train_size, params.training, seed)
    rate = rate_of(settings.learning_rate, score, sparsity)
    inputs = [pruned, questions, teacher_logits, *read]
    made_with = [compute, params.prompt.format, params.training, settings, rate, train_size, seed]
    with unfinished(out, inputs, made_with, params.resume.interval) as state:
        given = (task, order, rate, params.training, compute, seed, log, state)
        save_model(retrain(pruned, trees, *given), tokenizer, out)
