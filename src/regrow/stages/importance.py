"""Measure what pruning takes from each layer: weight norms, activations, removed neurons."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from regrow.importance.figure import importance_figure
from regrow.importance.layers import Layer, as_rows, in_short, mean_activations, removed_neurons
from regrow.model.setup import open_model, read_trees
from regrow.model.trees import Tree
from regrow.plot.style import save
from regrow.prune.activations import norms_by_layer
from regrow.prune.removal import choose_neurons, kept_count
from regrow.prune.scores import importances
from regrow.support.files import write_csv, write_json
from regrow.support.params import read_params

# The activations are means over the first of the train questions, whose order is a hash's: some
# thousand tokens place each neuron far more exactly than its layer spreads, in seconds.
QUESTIONS = 128


def main(teacher: Path, questions: Path, metrics: Path, plots: Path) -> None:
    """Write each layer's numbers and their figure to --plots, and their means to --metrics."""
    params = read_params()
    settings, compute = params.prune, params.compute
    # Over few questions, so in one process however many the others take.
    alone = compute.model_copy(update={"processes": 1, "shard": False})
    model, tokenizer = open_model(teacher, alone, settings.seed)
    _, trees = read_trees(questions, tokenizer, params.prompt.format)
    walked = trees[:QUESTIONS]
    tokens = sum(tree.nodes for tree in walked)
    activations = mean_activations(model, walked)

    def read() -> tuple[Any, list[Tree]]:
        """A model that may be pruned on the way, and what it reads."""
        return deepcopy(model), trees

    at_once = norms_by_layer(read, sequential=False)
    kept = {
        (score, sparsity): choose_neurons(
            *(teacher, compute.dtype, score, settings.seed),
            kept_count(len(activations[0]), sparsity, settings.multiple_of),
            norms_by_layer(read, True) if settings.sequential else at_once,
        )
        for score in params.sweep.score
        for sparsity in sorted(params.sweep.sparsity)
    }
    l2 = importances(teacher, compute.dtype, "l2", settings.seed, lambda layer: at_once(layer, []))
    layers = [
        Layer(
            norms.numpy(),
            activations[layer],
            {key: removed_neurons(found[layer], len(norms)) for key, found in kept.items()},
        )
        for layer, norms in enumerate(l2)
    ]
    write_csv(plots / "importance.csv", as_rows(layers))
    write_json(metrics, {"questions": len(walked), "tokens": tokens, **in_short(layers)})
    save(importance_figure(layers, tokens, len(walked)), plots / "importance")
