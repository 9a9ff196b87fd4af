"""Measure what pruning takes from each layer: weight norms, activations, removed neurons."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from regrow.importance.figure import importance_figure
from regrow.importance.layers import (
    Importance,
    Layer,
    as_json,
    as_rows,
    mean_activations,
    removed_neurons,
)
from regrow.model.folders import load_model, load_tokenizer
from regrow.model.mlps import find_mlps
from regrow.model.runtime import fix_runtime
from regrow.model.trees import Tree, build_trees
from regrow.plot.style import save
from regrow.prune.scores import (
    activation_importance,
    l2_importance,
    random_importance,
    record_activation_norms,
)
from regrow.support.files import write_csv, write_json
from regrow.support.params import read_params
from regrow.support.schema import Params
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
    fix_runtime(params.compute, params.prune.seed)
    model = load_model(teacher, params.compute.dtype, params.compute.device)
    tokenizer = load_tokenizer(teacher)
    trees = build_trees(tokenizer, read_questions(questions), params.prompt.format)
    sparsities = sorted(params.sweep.sparsity)
    walked = trees[:QUESTIONS]
    layers = [
        Layer(
            norms=l2_importance(mlp).cpu().numpy(),
            activations=activations,
            removed=removed_neurons(importance, sparsities, params.prune.multiple_of),
        )
        for mlp, activations, importance in zip(
            find_mlps(model),
            mean_activations(model, walked),
            _importances(model, trees, params),
            strict=True,
        )
    ]
    found = Importance(
        layers=layers,
        sparsities=sparsities,
        score=params.prune.score,
        questions=len(walked),
        tokens=sum(tree.nodes for tree in walked),
    )
    write_csv(plots / "importance.csv", as_rows(found))
    save(importance_figure(found), plots / "importance")
    write_json(metrics, as_json(found))


def _importances(model: Any, trees: list[Tree], params: Params) -> list[torch.Tensor]:
    """The score by which the stage `prune` chooses: [neurons] a layer."""
    mlps = find_mlps(model)
    if params.prune.score == "l2":
        return [l2_importance(mlp) for mlp in mlps]
    if params.prune.score == "random":
        return [random_importance(mlp, params.prune.seed, layer) for layer, mlp in enumerate(mlps)]
    norms = record_activation_norms(model, trees)
    return [activation_importance(mlp, norm) for mlp, norm in zip(mlps, norms, strict=True)]
