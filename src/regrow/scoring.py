"""The log-probability of each choice of a question."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch

from regrow.forward import row_logits
from regrow.trees import Positions, Tree, by_tokens, flat_rows, pack

# Enough tokens for matrix products to run at full speed; more only takes memory.
BATCH_TOKENS = 2048


def score_choices(
    model: Any, trees: Sequence[Tree], batch_tokens: int = BATCH_TOKENS
) -> list[list[float]]:
    """Summed natural-log probability of every branch's tokens given its context.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        trees: one a question, with all its choices as branches.
        batch_tokens: tokens a batch holds at most (a longer tree is a batch of its own).

    Returns:
        One list a tree, one number a branch, in the order given.
    """
    scores: list[list[float]] = [[] for _ in trees]
    for members in by_tokens(trees, batch_tokens):
        found = _score_batch(model, [trees[index] for index in members])
        for index, score in zip(members, found, strict=True):
            scores[index] = score
    return scores


@torch.inference_mode()
def _score_batch(model: Any, trees: Sequence[Tree]) -> list[list[float]]:
    batch = pack(trees)
    logits = row_logits(model, batch, flat_rows(batch, trees, "answer")).float()
    return branch_log_probs(logits, trees, "answer")


def branch_log_probs(
    logits: torch.Tensor, trees: Sequence[Tree], positions: Positions
) -> list[list[float]]:
    """Summed natural-log probability of every branch's tokens, a list a tree.

    Args:
        logits: [rows, vocabulary], at `tree.rows(positions)` of one tree after the other.
        trees: the trees.
        positions: any, for all of them hold the nodes that predict a branch's tokens.
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
    totals = logits.logsumexp(-1)
    log_probs = logits[picks, targets] - totals[picks]
    taken = iter(log_probs.tolist())
    return [[sum(islice(taken, len(branch))) for branch in tree.branches] for tree in trees]
