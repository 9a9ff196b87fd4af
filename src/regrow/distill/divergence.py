"""Divergences from the teacher's recorded distributions: the loss, and what it is computed on.

Each is a function in `DIVERGENCES`, which schema and stages read: from the student's logits
[rows, vocabulary] and the teacher's distributions at the same rows to the sum over rows, times the
square of the temperature T that softens both, which keeps the gradient's size as T grows (Hinton
et al. 2015, arXiv 1503.02531). With a top-k record the other tokens are one bucket on both sides.
Merging outcomes can only lower these divergences (data-processing inequality), so each is then a
lower bound, exact as k reaches the vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from regrow.distill.reader import Record, Targets
from regrow.model.forward import widened
from regrow.model.trees import Tree, keep_branch
from regrow.retrain.trainer import Task
from regrow.support.tables import Table


def distillation_task(
    trees: Sequence[Tree],
    ids: Sequence[str],
    record: Record,
    temperature: float,
    divergence: str,
    answers: Sequence[int] | None = None,
) -> Task:
    """A divergence from the teacher's record on the tree of all choices, with no gold.

    With `answers`, on the context and the branch of each answer alone.
    """
    record.check(ids, trees)
    rows = [record.rows(identity) for identity in ids]
    if answers is not None:
        for place, (tree, answer) in enumerate(zip(trees, answers, strict=True)):
            nodes, _ = tree.branch_targets()[answer]
            first = tree.rows(record.layout.positions).start
            chain = [*range(first, len(tree.context) - 1), *nodes]
            rows[place] = rows[place][np.array(chain) - first]
        trees = [keep_branch(tree, answer) for tree, answer in zip(trees, answers, strict=True)]

    def loss(logits: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
        targets = record.targets(np.concatenate([rows[place] for place in places]), temperature)
        return DIVERGENCES[divergence](logits, targets.to(logits.device))

    return Task(trees, record.layout.positions, loss)


DIVERGENCES: Table[Callable[[torch.Tensor, Targets], torch.Tensor]] = Table()


@DIVERGENCES.entry
def forward_kl(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """KL(teacher || student): the student covers all that the teacher finds likely."""
    if targets.tokens is not None and targets.log_tail is not None:
        bucketed: Callable[..., torch.Tensor] = _BucketedKL.apply
        softened = widened(logits) / targets.temperature
        divergence = bucketed(softened, targets.tokens, targets.log_probs, targets.log_tail)
    else:
        divergence = _kl(*_distributions(logits, targets))
    return divergence * targets.temperature**2


@DIVERGENCES.entry
def reverse_kl(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """KL(student || teacher): the student leaves out what the teacher finds unlikely.

    Agarwal et al. 2024, "GKD", arXiv 2306.13649, section 2.
    """
    teacher, student = _distributions(logits, targets)
    return _kl(student, teacher) * targets.temperature**2


@DIVERGENCES.entry
def jensen_shannon(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """The mean of both KL to the mean of teacher and student, at most ln 2 a row.

    GKD's generalised JSD at beta 1/2 (arXiv 2306.13649, section 2; TRL's
    `generalized_jsd_loss`). Near the teacher it is a quarter of either KL, so that a learning rate
    of theirs is not one of its own.
    """
    teacher, student = _distributions(logits, targets)
    mean = torch.logaddexp(teacher, student) - math.log(2)
    return (_kl(teacher, mean) + _kl(student, mean)) / 2 * targets.temperature**2


def _kl(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """The sum over rows of KL(ours || theirs), of log-probabilities [rows, outcomes]."""
    return F.kl_div(theirs, ours, reduction="sum", log_target=True)


def _distributions(logits: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [rows, outcomes] of teacher and student: of tokens, or of top k and rest.

    The rest is summed from the tokens outside, for 1 - (what is inside) would lose a small tail's
    digits; and as logarithms, for a tail below the smallest float still has a gradient.
    """
    student = (widened(logits) / targets.temperature).log_softmax(-1)
    if targets.tokens is None or targets.log_tail is None:
        return targets.log_probs, student
    outside = student.scatter(-1, targets.tokens, float("-inf")).logsumexp(-1, keepdim=True)
    inside = student.gather(-1, targets.tokens)
    teacher = torch.cat([targets.log_probs, targets.log_tail.unsqueeze(-1)], -1)
    return teacher, torch.cat([inside, outside], -1)


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
