"""Measure what pruning takes from each layer: weight norms, activations, removed neurons."""

from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

import typer

from regrow.importance.figure import importance_figure
from regrow.importance.layers import Layer, as_json, as_rows, mean_activations, removed_neurons
from regrow.model.folders import load_model, load_tokenizer
from regrow.model.runtime import fix_runtime
from regrow.model.trees import Tree, build_trees
from regrow.plot.style import save
from regrow.prune.activations import norms_by_layer
from regrow.prune.removal import choose_neurons, kept_count
from regrow.prune.scores import importances
from regrow.support.files import write_csv, write_json
from regrow.support.params import read_params
from regrow.tasks.questions import read_questions

# The activations are means over the first of the train questions, whose order is a hash's: some
# thousand tokens place each neuron far more exactly than its layer spreads, in seconds.
QUESTIONS = 128


def main(
    teacher: Annotated[Path, typer.Option(help="the unpruned model's folder")],
    questions: Annotated[Path, typer.Option(help="train questions")],
    metrics: Annotated[Path, typer.Option(help="JSON file to write")],
    plots: Annotated[Path, typer.Option(help="folder to write the figure and its numbers to")],
) -> None:
    """Measure what pruning takes from each layer: weight norms, activations, removed neurons."""
    params = read_params()
    # Over few questions, so in one process however many the others take.
    compute = params.compute
    alone = compute.model_copy(update={"processes": 1, "shard": False})
    fix_runtime(alone, params.prune.seed)
    model = load_model(teacher, params.compute.dtype, params.compute.device)
    trees = build_trees(load_tokenizer(teacher), read_questions(questions), params.prompt.format)
    walked = trees[:QUESTIONS]
    tokens = sum(tree.nodes for tree in walked)
    activations = mean_activations(model, walked)
    dtype, settings = params.compute.dtype, params.prune

    def read() -> tuple[Any, list[Tree]]:
        """A model that may be pruned on the way, and what it reads."""
        return deepcopy(model), trees

    at_once = norms_by_layer(read, sequential=False)
    kept = {
        (score, sparsity): choose_neurons(
            *(teacher, dtype, score, settings.seed),
            kept_count(len(activations[0]), sparsity, settings.multiple_of),
            norms_by_layer(read, True) if settings.sequential else at_once,
        )
        for score in params.sweep.score
        for sparsity in sorted(params.sweep.sparsity)
    }
    l2 = importances(teacher, dtype, "l2", settings.seed, lambda layer: at_once(layer, []))
    layers = [
        Layer(
            norms.numpy(),
            activations[layer],
            {key: removed_neurons(found[layer], len(norms)) for key, found in kept.items()},
        )
        for layer, norms in enumerate(l2)
    ]
    write_csv(plots / "importance.csv", as_rows(layers))
    numbers = {"questions": len(walked), "tokens": tokens, **as_json(layers)}
    write_json(metrics, numbers)
    save(importance_figure(layers, tokens, len(walked)), plots / "importance")
