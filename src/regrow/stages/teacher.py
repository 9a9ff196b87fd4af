"""Make the teacher: the base model, fine-tuned on the task when teacher.finetune."""

import shutil
from pathlib import Path

from regrow.model.folders import save_model
from regrow.model.setup import open_model, read_trees
from regrow.retrain.cross_entropy import finetuning_task
from regrow.retrain.order import training_order
from regrow.retrain.trainer import train
from regrow.support import ranks
from regrow.support.files import replacing, write_json
from regrow.support.params import read_params
from regrow.support.resume import unfinished
from regrow.tasks.questions import read_labels


def main(base: Path, questions: Path, labels: Path, out: Path, log: Path) -> None:
    """Write the model in --base, or what becomes of it, to --out, and the loss by step to --log."""
    params = read_params()
    settings, seed = params.teacher, params.teacher.seed
    if not settings.finetune:
        if ranks.first():
            with replacing(out) as beside:
                shutil.copytree(base, beside)
            # An output of the stage with nothing to log; git would not keep an empty folder.
            write_json(log / "metrics.json", {"step": 0})
        return
    model, tokenizer = open_model(base, params.compute, seed)
    asked, trees = read_trees(questions, tokenizer, params.prompt.format)
    task = finetuning_task(trees, read_labels(labels, asked), settings.positions)
    size = settings.train_size or len(asked)
    order = training_order(len(asked), size, settings.training, seed)
    inputs, made_with = [base, questions, labels], [params.compute, params.prompt.format, settings]
    with unfinished(out, inputs, made_with, params.resume.interval) as state:
        rate = settings.learning_rate
        train(model, task, order, rate, settings.training, params.compute, seed, log, state)
        save_model(model, tokenizer, out)
