"""The loss of many rows, of whose logits only a part is in memory at once.

The logits of a batch, what a loss makes of them and their gradient are by far the largest tensors
of a step: [rows, vocabulary] each. Here each part's gradient is taken as soon as its loss is known
(as Liger Kernel's chunked losses do), so that a part's logits are gone before the next part's come,
and nothing is computed twice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from regrow.model.forward import OutputLayer

Losses = Sequence[tuple[int, Callable[[torch.Tensor], torch.Tensor]]]
"""For each part, how many rows it has and its loss from its logits [rows, vocabulary]."""


def summed_in_parts(states: torch.Tensor, output: OutputLayer, losses: Losses) -> torch.Tensor:
    """The sum of the parts' losses, which may be differentiated once.

    `states` are last hidden states [n, hidden], the parts' rows one after the other.
    """
    weight, bias = output.linear.weight, output.linear.bias
    apply: Any = _InParts.apply  # which torch gives no types
    total = apply(states, weight, bias, output, losses)
    return total if isinstance(total, torch.Tensor) else total[0]


class _InParts(torch.autograd.Function):
    """The sum, with the gradients by states, matrix and bias computed on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        output: OutputLayer,
        losses: Losses,
    ) -> torch.Tensor:
        total: Any = 0.0
        by_states = torch.empty_like(states)
        by_weight: torch.Tensor | None = None
        by_bias = None if bias is None else torch.zeros_like(bias)
        start = 0
        for rows, loss in losses:
            part = states[start : start + rows]
            logits = output.uncapped(part).requires_grad_()
            with torch.enable_grad():
                value = loss(output.capped(logits))
            (gradient,) = torch.autograd.grad(value, logits)
            total = total + value.detach()
            del logits, value
            by_states[start : start + rows] = gradient @ weight.to(gradient.dtype)
            if by_weight is None:
                by_weight = (gradient.t() @ part.to(gradient.dtype)).to(weight.dtype)
            elif gradient.dtype == weight.dtype:
                by_weight.addmm_(gradient.t(), part)
            else:
                by_weight += gradient.t() @ part.to(gradient.dtype)
            if by_bias is not None:
                by_bias += gradient.sum(0)
            start += rows
        ctx.kept = [by_states, by_weight, by_bias]
        found: torch.Tensor = total
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        # In place and handed on, for another copy of the matrix is among the largest of a step.
        kept, ctx.kept = ctx.kept, None
        return *(None if one is None else one.mul_(gradients[0]) for one in kept), None, None
