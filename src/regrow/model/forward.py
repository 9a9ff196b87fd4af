"""Logits of a batch of trees, computed only at the rows that a loss or a score reads.

The output matrix is the largest of a small model: for SmolLM2-135M it has 28 of 134 million
parameters, and most positions of a context are never read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar

import torch
from torch.nn import functional as F

from regrow.model.folders import empty_model, read_tensor, weight_files
from regrow.model.runtime import products
from regrow.model.trees import Batch
from regrow.support.errors import UserError


@dataclass(frozen=True, slots=True)
class OutputLayer:
    """What makes logits of last hidden states."""

    linear: Any  # the module of the output matrix, [vocabulary, hidden]
    cap: float | None  # what Gemma 2 and its kin squash logits by (`final_logit_softcapping`)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Logits [n, vocabulary] of states [n, hidden], as transformers computes them."""
        return self.capped(self.uncapped(states))

    def uncapped(self, states: torch.Tensor) -> torch.Tensor:
        """The matrix product alone."""
        # Not by a call of the module, which FSDP2 would take for another forward of the model.
        return F.linear(states, self.linear.weight, self.linear.bias)

    def capped(self, logits: torch.Tensor) -> torch.Tensor:
        """Squash logits where the model does."""
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def output_layer(model: Any) -> OutputLayer:
    """A model's own; it keeps the output matrix alive, and nothing else of the model."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return OutputLayer(model.get_output_embeddings(), cap)


def read_output_layer(folder: Path, dtype: str, device: str) -> OutputLayer:
    """That of the model in `folder`, of which it alone is read; `UserError` if it has none."""
    layer = output_layer(model := empty_model(folder, dtype))
    # Where it is tied to the embedding, the file holds it under that name.
    names = [
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter is layer.linear.weight
    ]
    files = weight_files(folder)
    name = next((name for name in names if name in files), names[0])
    weight = read_tensor(folder, name, dtype).to(device)
    layer.linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    return layer


T = TypeVar("T")
Read = Callable[[torch.Tensor, OutputLayer], T]
"""From last hidden states [n, hidden] and what makes logits of them to what is wanted."""


def row_logits(model: Any, batch: Batch, rows: torch.Tensor) -> torch.Tensor:
    """Logits at `rows`, [n, vocabulary] in the model's dtype; see `read_rows`."""
    return read_rows(model, batch, rows, lambda states, output: output(states))


def read_rows(model: Any, batch: Batch, rows: torch.Tensor, read: Read[T]) -> T:
    """`read` of the last hidden states at `rows`, behind the model's last norm.

    All of it happens in one call of the model, in which DDP and FSDP2 have what they gather.
    `model` may be in DDP's wrapper; `rows` are [n] int64, positions in the flattened batch; `read`
    takes the states [n, hidden], in the model's dtype, and its output layer. Raises `UserError`
    where a tree is longer than the model's sliding window, or of another tokenizer.
    """
    inner = getattr(model, "module", model)
    if "forward" not in vars(inner):
        _bind(inner)
    device = inner.device
    check_tokens(int(batch.input_ids.max()), inner.get_input_embeddings().weight.shape[0])
    _check_window(inner.config, int(batch.position_ids.max()) + 1)
    with products(device.type):
        found: T = model(
            input_ids=batch.input_ids.to(device),
            position_ids=batch.position_ids.to(device),
            attention_mask=_mask(inner, batch.attention_mask.to(device)),
            rows=rows.to(device),
            read=read,
        )
    return found


def _bind(model: Any) -> None:
    """Give a model and its output layer a forward that takes `read`; without it, it is as before.

    The output layer is called once too, for FSDP2 gathers its matrix in that call.
    """
    model.forward = MethodType(_forward, model)
    head = model.get_output_embeddings()
    head.forward = MethodType(_head, head)


def _forward(self: Any, *given: Any, read: Any = None, rows: Any = None, **named: Any) -> Any:
    if read is None:
        return type(self).forward(self, *given, **named)
    states = self.base_model(**named, use_cache=False).last_hidden_state
    cap = output_layer(self).cap
    return self.get_output_embeddings()(states.reshape(-1, states.shape[-1])[rows], read, cap)


def _head(self: Any, states: Any, read: Any = None, cap: Any = None) -> Any:
    return (
        type(self).forward(self, states) if read is None else read(states, OutputLayer(self, cap))
    )


def check_tokens(largest: int, vocabulary: int) -> None:
    """Raise `UserError` where a tokenizer gives a token that the model has no row for."""
    if largest >= vocabulary:
        raise UserError(
            f"the tokenizer gives token {largest}, but the model has {vocabulary} tokens, from 0; "
            "its tokenizer files are those of another model"
        )


def _mask(model: Any, sees: torch.Tensor) -> torch.Tensor:
    # Only sdpa takes a mask of true and false; the others add the mask to their logits.
    if model.config._attn_implementation == "sdpa":
        return sees
    hidden = torch.finfo(model.dtype).min
    return torch.zeros(sees.shape, dtype=model.dtype, device=sees.device).masked_fill(~sees, hidden)


def _check_window(config: Any, length: int) -> None:
    # A mask of our own takes the place of the one by which such a model forgets what is far away.
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window and length > window and (kinds is None or "sliding_attention" in kinds):
        raise UserError(
            f"a question has {length} tokens with its longest choice, but this model's "
            f"sliding_window is {window}; take shorter questions, or a model without such a window"
        )


def widened(logits: torch.Tensor) -> torch.Tensor:
    return logits.float() if logits.dtype.itemsize < 4 else logits
