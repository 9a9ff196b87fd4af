"""Remove the least important neurons of the teacher's MLPs."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from regrow.model.folders import count_parameters, empty_model, load_model, load_tokenizer
from regrow.model.mlps import count_mlp_parameters, find_mlps
from regrow.model.runtime import fix_runtime
from regrow.model.setup import read_trees
from regrow.model.trees import Tree
from regrow.prune.activations import norms_by_layer
from regrow.prune.removal import choose_neurons, kept_count, write_pruned
from regrow.prune.steps import FILE, FIRST, Steps, step_widths
from regrow.support import ranks
from regrow.support.errors import UserError
from regrow.support.files import replacing, write_json
from regrow.support.params import read_params


def main(teacher: Path, score: str, sparsity: float, questions: Path, out: Path) -> None:
    """Write the model in --teacher without so large a fraction of its MLP neurons to --out.

    Those of the lowest --score go; scores of activations run the model on --questions.
    """
    if not 0 < sparsity < 1:
        raise UserError(
            f"--sparsity (sweep.sparsity) is {sparsity}, but must lie between 0 and 1, both "
            "excluded: it is the fraction of neurons that go"
        )
    params = read_params()
    compute, settings = params.compute, params.prune
    fix_runtime(compute, settings.seed, keep_memory=False)
    tokenizer = load_tokenizer(teacher)
    dense = empty_model(teacher, compute.dtype)
    neurons = find_mlps(dense)[0].gate_proj.out_features
    count = kept_count(neurons, sparsity, settings.multiple_of)
    widths = step_widths(neurons, count, settings.steps, settings.multiple_of)

    def read() -> tuple[Any, list[Tree]]:
        """The model and what it reads, for scores that ask for activations."""
        _, trees = read_trees(questions, tokenizer, params.prompt.format)
        return load_model(teacher, compute.dtype, ranks.local_device(compute.device)), trees

    at_once = norms_by_layer(read, sequential=False)
    kept = {
        width: choose_neurons(
            *(teacher, compute.dtype, score, settings.seed, width),
            norms_by_layer(read, True) if settings.sequential else at_once,
        )
        for width in (count, widths[0])
    }
    if not ranks.first():
        return
    with replacing(out) as beside:
        model = write_pruned(teacher, kept[count], beside, compute.dtype)
        tokenizer.save_pretrained(beside)
        if settings.steps > 1:
            write_pruned(teacher, kept[widths[0]], beside / FIRST, compute.dtype)
            tokenizer.save_pretrained(beside / FIRST)
            steps = Steps(score, settings.seed, settings.sequential, widths)
            write_json(beside / FILE, asdict(steps))
    print(
        f"{out}: {count} of {neurons} neurons a layer stay ({score}); "
        f"{count_mlp_parameters(model) / count_mlp_parameters(dense):.1%} of the MLP parameters, "
        f"{count_parameters(model):,} parameters in all"
    )
