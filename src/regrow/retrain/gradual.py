"""A pruned model retrained: at once, or step by step where it is pruned gradually."""

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from regrow.model.folders import save_model
from regrow.model.setup import open_model
from regrow.model.trees import Tree
from regrow.prune.steps import FIRST, prune_on, read_steps
from regrow.retrain.checkpoint import Logged
from regrow.retrain.trainer import Task, train
from regrow.support import ranks
from regrow.support.errors import UserError
from regrow.support.resume import Unfinished, content
from regrow.support.schema import Compute, Training


def retrain(
    pruned: Path,
    trees: Sequence[Tree],
    task: Task,
    order: Sequence[int],
    learning_rate: float,
    settings: Training,
    compute: Compute,
    seed: int,
    log: Path,
    state: Unfinished,
) -> Any:
    """The model in `pruned`, retrained.

    One that is pruned gradually begins as its first step, and is trained on as many parts of the
    order as there are steps, pruned on between them by activations on `trees`. Each part is a
    training of its own, with warm-up and decay, and with a new AdamW, for the states of the neurons
    that go would go too. `state` keeps the last checkpoint, and the model that the last whole step
    ended with; the other arguments are those of `train`.
    """
    steps = read_steps(pruned)
    if steps is None:
        model, _ = open_model(pruned, compute, seed)
        train(model, task, order, learning_rate, settings, compute, seed, log, state)
        return model
    parts = cut(order, settings.batch_size, len(steps.widths))
    done, logged = ranks.told(_done(state) if ranks.first() else None)
    if done and ranks.first():
        print(f"An interrupted training goes on at pruning step {done + 1} of {len(parts)}.")
    folder = state.folder / f"step-{done + 1}" if done else pruned / FIRST
    for step, part in enumerate(parts[done:], done + 1):
        if ranks.first():
            for path in state.folder.glob("*-*"):  # of earlier steps
                if path.name not in (folder.name, f"training-{step}"):
                    shutil.rmtree(path)
        training = state.part(f"training-{step}")
        model, tokenizer = open_model(folder, compute, seed)
        given = (task, part, learning_rate, settings, compute, seed, log, training, logged)
        logged = train(model, *given)
        if step < len(parts):
            trained, folder = training.folder / "model", state.folder / f"step-{step + 1}"
            save_model(model, tokenizer, trained)
            del model  # before another is loaded
            ranks.wait()
            prune_on(trained, steps, step + 1, trees, compute, folder)
            if ranks.first():
                state.write({"done": step, "logged": logged, "model": content(folder)})
    return model


def cut(order: Sequence[int], batch_size: int, parts: int) -> list[Sequence[int]]:
    """An order in parts of equally many batches, or one more; `UserError` if they are too few."""
    batches = -(-len(order) // batch_size)
    if batches < parts:
        raise UserError(
            f"prune.steps is {parts}, but there are only {batches} steps of training to prune "
            "between; lower it, or raise training.epochs"
        )
    ends = [batches * part // parts * batch_size for part in range(parts + 1)]
    return [order[start:end] for start, end in pairwise(ends)]


def _done(state: Unfinished) -> tuple[int, Logged]:
    """How many steps are whole, and what they logged; where a file is damaged, none."""
    progress = state.read()
    if progress is None:
        return 0, []
    done: int = progress["done"]
    folder = state.folder / f"step-{done + 1}"
    if not folder.is_dir() or content(folder) != progress["model"]:
        state.discard(folder)
        return 0, []
    return done, [tuple(values) for values in progress["logged"]]
