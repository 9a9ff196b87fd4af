"""Divergences from the teacher's recorded distributions: the loss, and what it is computed on."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from regrow.distill.reader import Record
from regrow.distill.record import Targets
from regrow.model.forward import widened
from regrow.model.trees import Tree
from regrow.retrain.trainer import Task
from regrow.support.tables import Table


def distillation_task(
    trees: Sequence[Tree],
    ids: Sequence[str],
    record: Record,
    temperature: float,
    divergence: str,
) -> Task:
    """A divergence from the teacher's record on the tree of all choices, with no gold."""
    record.check(ids, trees)

    def loss(logits: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
        targets = record.targets([ids[place] for place in places], temperature)
        return DIVERGENCES[divergence](logits, targets.to(logits.device))

    return Task(trees, record.layout.positions, loss)


DIVERGENCES: Table[Callable[[torch.Tensor, Targets], torch.Tensor]] = Table()


@DIVERGENCES.entry
def forward_kl(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Sum over rows of T^2 KL(teacher || student), both softened by T.

    The factor T^2 keeps the gradient's size as T grows (Hinton et al. 2015, arXiv 1503.02531).
    With a top-k record the other tokens are one bucket on both sides; merging outcomes can only
    lower a KL (data-processing inequality), so this is a lower bound, exact as k reaches the
    vocabulary.

    Args:
        logits: [rows, vocabulary], the student's.
        targets: the teacher's distributions at the same rows.
    """
    softened = widened(logits) / targets.temperature
    if targets.tokens is None or targets.log_tail is None:
        student = softened.log_softmax(-1)
        divergence = F.kl_div(student, targets.log_probs, reduction="sum", log_target=True)
    else:
        bucketed: Any = _BucketedKL.apply
        divergence = bucketed(softened, targets.tokens, targets.log_probs, targets.log_tail)
    return divergence * targets.temperature**2


class _BucketedKL(torch.autograd.Function):
    """KL with the tokens outside the top k as one bucket, and its gradient, in one pass.

    With p the teacher, q the student's softmax, and t the tail, the derivative by a logit is
    q_i - p_i inside the top k, and q_j (1 - p_t / q_t) outside. Left to autograd, the same takes
    some three times as many passes over [rows, vocabulary].
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        tokens: torch.Tensor,
        log_probs: torch.Tensor,
        log_tail: torch.Tensor,
    ) -> torch.Tensor:
        """The divergence summed over rows; shapes as in `Targets`."""
        log_total = logits.logsumexp(-1, keepdim=True)
        log_inside = logits.gather(-1, tokens) - log_total
        inside, tail = log_probs.exp(), log_tail.exp()
        outside = (logits - log_total).scatter_(-1, tokens, float("-inf"))
        # Summed from what is outside, for 1 - (what is inside) would lose a small tail's digits;
        # and as logarithms, for a tail below the smallest float still has a gradient.
        log_student_tail = outside.logsumexp(-1, keepdim=True)
        divergence = (inside * (log_probs - log_inside)).sum()
        divergence += (tail * (log_tail - log_student_tail.squeeze(-1))).sum()
        within = outside.sub_(log_student_tail).exp_()  # the softmax among the tokens outside
        gradient = within.mul_(log_student_tail.exp() - tail.unsqueeze(-1))
        ctx.save_for_backward(gradient.scatter_(-1, tokens, log_inside.exp() - inside))
        return divergence

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The derivative by the logits; the teacher's side has none."""
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None
