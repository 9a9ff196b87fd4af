"""What a stage with a model begins with: runtime, model and tokenizer, questions and trees."""

from pathlib import Path
from typing import Any

from regrow.model.folders import load_model, load_tokenizer
from regrow.model.runtime import fix_runtime
from regrow.model.trees import Tree, build_trees
from regrow.support import ranks
from regrow.support.schema import Compute
from regrow.tasks.prompts import Format
from regrow.tasks.questions import Question, read_questions


def open_model(folder: Path, compute: Compute, seed: int) -> tuple[Any, Any]:
    """The model in `folder`, where and as `compute` says, and its tokenizer.

    With `compute.shard` it is in FSDP2's hands: each rank reads and holds its part of every matrix.
    """
    fix_runtime(compute, seed)
    shards: Any = None
    if compute.shard and ranks.world() > 1:
        from transformers.distributed.configuration_utils import DistributedConfig

        mixed = compute.mixed_precision is not None
        shards = DistributedConfig(fsdp_size=ranks.world(), fsdp_mixed_precision=mixed)
    device = ranks.local_device(compute.device)
    return load_model(folder, compute.dtype, device, shards), load_tokenizer(folder)


def read_trees(path: Path, tokenizer: Any, form: Format) -> tuple[list[Question], list[Tree]]:
    """The questions of a file and the tree of each."""
    asked = read_questions(path)
    return asked, build_trees(tokenizer, asked, form)
