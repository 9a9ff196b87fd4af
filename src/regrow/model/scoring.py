"""The log-probability of each choice of a question."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any, TypeVar

import torch

from regrow.model.forward import check_tokens, row_logits
from regrow.model.trees import Positions, Tree, by_tokens, flat_rows, pack
from regrow.support import ranks
from regrow.support.resume import Unfinished

# Enough tokens for matrix products to run at full speed; more only takes memory.
BATCH_TOKENS = 2048
T = TypeVar("T")
# Rows of logits that are reduced at once: each step of a reduction holds another copy of them.
ROWS = 64


def score_choices(
    model: Any,
    trees: Sequence[Tree],
    batch_tokens: int = BATCH_TOKENS,
    state: Unfinished | None = None,
) -> list[list[float]]:
    """Summed natural-log probability of every branch's tokens given its context, a list a tree.

    A batch holds at most `batch_tokens` tokens, or one longer tree. `state` keeps the scores found
    so far, and gives back those of an interrupted run.
    """
    batches = by_tokens(trees, batch_tokens)
    kept = state.read() if state and ranks.first() else None
    done: list[list[list[float]]] = ranks.told(kept) or []
    if done and ranks.first():
        going_on = f"An interrupted run goes on behind {len(done)} of {len(batches)} batches."
        print(going_on, flush=True)
    for dealt in rounds(len(done), len(batches)):
        members = batches[dealt[ranks.rank()]]
        found = ranks.gathered(_score_batch(model, [trees[index] for index in members]))
        done += found[: len(set(dealt))]
        if state and ranks.first() and state.due():
            state.write(done)
    return by_tree(batches, done)


def by_tree(batches: Sequence[Sequence[int]], found: Sequence[Sequence[T]]) -> list[T]:
    """What was found of the trees of each batch, in the order of the trees."""
    pairs = zip(chain(*batches), chain(*found), strict=True)
    return [one for _, one in sorted(pairs, key=itemgetter(0))]


def rounds(start: int, stop: int) -> Iterator[list[int]]:
    """Deal out whole batches, so that each is run as by one process: a batch for every rank.

    A sharded model needs all ranks each time, so the last round is filled with its first batch,
    of which one result is kept.
    """
    for first in range(start, stop, ranks.world()):
        every = range(first, first + ranks.world())
        yield [place if place < stop else first for place in every]


@torch.inference_mode()
def _score_batch(model: Any, trees: Sequence[Tree]) -> list[list[float]]:
    batch = pack(trees)
    logits = row_logits(model, batch, flat_rows(batch, trees, "answer")).float()
    return branch_log_probs(logits, trees, "answer")


def branch_log_probs(
    logits: torch.Tensor, trees: Sequence[Tree], positions: Positions
) -> list[list[float]]:
    """Summed natural-log probability of every branch's tokens, a list a tree.

    `logits` are [rows, vocabulary], at `tree.rows(positions)` of one tree after the other.
    """
    picks: list[int] = []
    targets: list[int] = []
    offset = 0
    for tree in trees:
        rows = tree.rows(positions)
        for nodes, tokens in tree.branch_targets():
            picks += [offset + node - rows.start for node in nodes]
            targets += tokens
        offset += len(rows)
    check_tokens(max(targets, default=0), logits.shape[-1])
    totals = torch.cat([part.logsumexp(-1) for part in row_parts(logits)])
    log_probs = logits[picks, targets] - totals[picks]
    taken = iter(log_probs.tolist())
    return [[sum(islice(taken, len(branch))) for branch in tree.branches] for tree in trees]


def row_parts(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits [rows, vocabulary] in parts of at most `ROWS` rows, and of two rows at least.

    A row's sum is the same in any of them. Alone it would not be: torch splits the sum over the
    only row there is by threads.
    """
    return logits.tensor_split(-(-len(logits) // ROWS))
