"""Logits of a batch of trees, computed only at the rows that a loss or a score reads.

The output matrix is the largest of a small model: for SmolLM2-135M it has 28 of 134 million
parameters, and most positions of a context are never read.
"""

from dataclasses import dataclass
from typing import Any

import torch

from regrow.model.trees import Batch
from regrow.support.errors import UserError


@dataclass(frozen=True, slots=True)
class OutputLayer:
    """What makes logits of last hidden states.

    Attributes:
        linear: the module of the output matrix, [vocabulary, hidden].
        cap: what Gemma 2 and its kin squash their logits by (`final_logit_softcapping`), or none.
    """

    linear: Any
    cap: float | None

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Logits [n, vocabulary] of states [n, hidden], as transformers computes them."""
        logits: torch.Tensor = self.linear(states)
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def output_layer(model: Any) -> OutputLayer:
    """A model's own; it keeps the output matrix alive, and nothing else of the model."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return OutputLayer(model.get_output_embeddings(), cap)


def row_logits(model: Any, batch: Batch, rows: torch.Tensor) -> torch.Tensor:
    """Logits at `rows`, [n, vocabulary] in the model's dtype; see `row_states`."""
    return output_layer(model)(row_states(model, batch, rows))


def row_states(model: Any, batch: Batch, rows: torch.Tensor) -> torch.Tensor:
    """Last hidden states at `rows`, behind the model's last norm.

    Args:
        model: a causal language model of transformers.
        batch: packed trees, of `rows * length` positions.
        rows: [n] int64, positions in the flattened batch.

    Returns:
        [n, hidden], in the model's dtype.

    Raises:
        UserError: a tree is longer than the model's sliding window, or of another tokenizer.
    """
    device = model.device
    check_tokens(int(batch.input_ids.max()), model.get_input_embeddings().weight.shape[0])
    _check_window(model.config, int(batch.position_ids.max()) + 1)
    states = model.base_model(
        input_ids=batch.input_ids.to(device),
        position_ids=batch.position_ids.to(device),
        attention_mask=_mask(model, batch.attention_mask.to(device)),
        use_cache=False,
    ).last_hidden_state
    selected: torch.Tensor = states.reshape(-1, states.shape[-1])[rows.to(device)]
    return selected


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
