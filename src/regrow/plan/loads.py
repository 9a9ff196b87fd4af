"""What stages run through a model: trees of tokens, in steps and batches, with their operations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from regrow.model.scoring import BATCH_TOKENS
from regrow.model.trees import Positions, Tree, by_tokens, keep_branch, pack
from regrow.plan.memory import Load
from regrow.plan.shapes import Costs, trees_forward
from regrow.support.schema import Compute, Training


@dataclass(frozen=True, slots=True)
class Questions:
    """How long questions are in tokens: as many of them as there are, or a sample.

    Attributes:
        trees: their trees; the tokens do not count, only how many there are.
        source: where this is known from, for the reader.
    """

    trees: Sequence[Tree]
    source: str

    def take(self, count: int, gold: bool = False) -> list[Tree]:
        """So many of them, from the front again where they are too few; `gold`: with one choice."""
        taken = list(islice(cycle(self.trees), count))
        return [keep_branch(tree, 0) for tree in taken] if gold else taken


def trees_of(lengths: Sequence[tuple[int, Sequence[int]]]) -> list[Tree]:
    """Trees of a context of so many tokens, and of branches of so many each."""
    return [
        Tree((0,) * context, tuple((0,) * branch for branch in branches))
        for context, branches in lengths
    ]


def training_flops(
    costs: Costs, trees: Sequence[Tree], positions: Positions, settings: Training, compute: Compute
) -> int:
    """Operations of a training: the backward pass takes two forward ones, checkpointing one more.

    Twice the forward pass for the gradients of weights and activations, as is usual (Kaplan et al.
    2020, arXiv 2001.08361).
    """
    read = (settings.steps or 0) * settings.batch_size or len(trees) * settings.epochs
    passes = 4 if compute.checkpointing else 3
    return passes * trees_forward(costs, trees, positions) * read // len(trees)


def training_load(
    trees: Sequence[Tree], positions: Positions, settings: Training, compute: Compute
) -> Load:
    """The largest micro-batch that a rank runs at once."""
    share = -(-min(settings.batch_size, len(trees)) // compute.processes)
    count = min(compute.micro_batch or share, share)
    return _largest(
        (trees[start : start + count] for start in range(0, len(trees), count)), positions
    )


def is_accumulated(settings: Training, compute: Compute) -> bool:
    """Whether a step runs more than one micro-batch."""
    share = -(-settings.batch_size // compute.processes)
    return compute.micro_batch is not None and compute.micro_batch < share


def inference_load(
    trees: Sequence[Tree], positions: Positions, batch_tokens: int = BATCH_TOKENS
) -> Load:
    """The largest batch of scoring or recording."""
    batches = by_tokens(trees, batch_tokens)
    return _largest(([trees[place] for place in members] for members in batches), positions)


MOST = 200  # batches looked at: the largest of so many is as good as the largest


def _largest(batches: Iterator[Sequence[Tree]], positions: Positions) -> Load:
    loads = []
    for batch in islice(batches, MOST):
        rows, length = pack(batch).input_ids.shape
        loads.append(Load(rows, length, sum(len(tree.rows(positions)) for tree in batch)))
    return max(loads, key=lambda load: (load.tokens, load.read))
