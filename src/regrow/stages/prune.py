"""Remove the least important neurons of the teacher's MLPs."""

from pathlib import Path
from typing import Annotated

import typer

from regrow.model.folders import count_parameters, load_model, load_tokenizer, save_model
from regrow.model.mlps import count_mlp_parameters, find_mlps
from regrow.model.runtime import fix_runtime
from regrow.model.trees import build_trees
from regrow.prune.removal import kept_count, remove_neurons
from regrow.prune.scores import importances
from regrow.support.errors import UserError
from regrow.support.params import read_params
from regrow.tasks.questions import read_questions


def main(
    teacher: Annotated[Path, typer.Option(help="the model to prune")],
    score: Annotated[str, typer.Option(help="by which importance")],
    sparsity: Annotated[float, typer.Option(help="fraction of the MLP neurons to remove")],
    questions: Annotated[Path, typer.Option(help="train questions, for scores of activations")],
    out: Annotated[Path, typer.Option(help="the pruned model's folder")],
) -> None:
    """Remove the least important neurons of the teacher's MLPs."""
    if not 0 < sparsity < 1:
        raise UserError(
            f"--sparsity (sweep.sparsity) is {sparsity}, but must lie between 0 and 1, both "
            "excluded: it is the fraction of neurons that go"
        )
    params = read_params()
    fix_runtime(params.compute, params.prune.seed)
    model = load_model(teacher, params.compute.dtype, params.compute.device)
    tokenizer = load_tokenizer(teacher)
    dense = count_mlp_parameters(model)
    neurons = find_mlps(model)[0].gate_proj.out_features
    count = kept_count(neurons, sparsity, params.prune.multiple_of)
    trees = build_trees(tokenizer, read_questions(questions), params.prompt.format)
    remove_neurons(model, importances(model, score, params.prune.seed, trees), count)
    save_model(model, tokenizer, out)
    print(
        f"{out}: {count} of {neurons} neurons a layer stay ({score}); "
        f"{count_mlp_parameters(model) / dense:.1%} of the MLP parameters, "
        f"{count_parameters(model):,} parameters in all"
    )
