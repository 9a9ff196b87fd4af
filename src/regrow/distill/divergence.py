"""Divergences from the teacher's recorded distributions: the loss, and what it is computed on.

Each is a function in `DIVERGENCES`, which schema and stages read: from the student's logits
[rows, vocabulary] and the teacher's distributions at the same rows to the sum over rows, times the
square of the temperature T that softens both, which keeps the gradient's size as T grows (Hinton
et al. 2015, arXiv 1503.02531).
"""

import math
from collections.abc import Callable, Sequence

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
        return DIVERGENCES[divergence](logits, targets)

    return Task(trees, record.layout.positions, loss)


DIVERGENCES: Table[Callable[[torch.Tensor, Targets], torch.Tensor]] = Table()


@DIVERGENCES.entry
def forward_kl(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """KL(teacher || student): the student covers all that the teacher finds likely."""
    return _kl(*_distributions(logits, targets)) * targets.temperature**2


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
    """The sum over rows of KL(ours || theirs), of log-probabilities [rows, vocabulary]."""
    return F.kl_div(theirs, ours, reduction="sum", log_target=True)


def _distributions(logits: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [rows, vocabulary] of teacher and student, equally softened."""
    student = (widened(logits) / targets.temperature).log_softmax(-1)
    return targets.log_probs, student
