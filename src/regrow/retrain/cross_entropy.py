"""Cross-entropy on labels: the loss, and what it is computed on."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from regrow.model.forward import check_tokens, widened
from regrow.model.trees import Positions, Tree, keep_branch
from regrow.retrain.trainer import Task


def finetuning_task(trees: Sequence[Tree], answers: Sequence[int], positions: Positions) -> Task:
    """Cross-entropy on context and gold choice: the answer's tokens, or language modelling."""
    chains = [keep_branch(tree, answer) for tree, answer in zip(trees, answers, strict=True)]

    def loss(logits: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
        tokens: list[int] = []
        for place in places:
            chain = chains[place]
            following = chain.context[1:] if positions == "all" else ()
            tokens += following + chain.branches[0]
        check_tokens(max(tokens), logits.shape[-1])
        return cross_entropy(logits, torch.tensor(tokens, device=logits.device))

    return Task(chains, positions, loss)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of -log p(target) over rows, of logits [rows, vocabulary] and targets [rows] int64."""
    return F.cross_entropy(widened(logits), targets, reduction="sum")
