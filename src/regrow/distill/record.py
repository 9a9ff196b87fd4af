"""The format of a record of the teacher's distributions.

A record is a folder. It holds a distribution for every node of the questions' token trees that
`positions` selects, in the order of the questions:

- `record.json`: what follows, in numbers;
- `ids.json`: the questions' ids, in order;
- `offsets.npy` [questions + 1] int64: question q owns rows offsets[q] to offsets[q + 1];
- `nodes.npy` [rows] int32: the token that the teacher read there, so that a record is never laid
  over another tokenisation;
- `states.npy` [rows, hidden], the teacher's last hidden states in its own type (bfloat16 as
  uint16). With the teacher's output matrix, of which `record.json` holds a hash, they give every
  logit back, at a fiftieth to a hundredth of the logits' size.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from regrow.model.trees import Positions
from regrow.support.errors import UserError

STATES: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,  # NumPy has no type for it
}
"""What holds states of a model's dtype."""

Column = tuple[type[np.generic], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a record holds: `record.json`."""

    positions: Positions  # see `Tree.rows`
    vocabulary: int  # tokens of the teacher
    rows: int  # all positions recorded
    hidden: int  # numbers a state
    dtype: str  # the states', a name of `STATES`
    output: str  # the SHA-256 of the teacher's output matrix

    def columns(self, questions: int) -> dict[str, Column]:
        """The type and shape of each column of a record of so many questions."""
        return {
            "offsets": (np.int64, (questions + 1,)),
            "nodes": (np.int32, (self.rows,)),
            "states": (STATES[self.dtype], (self.rows, self.hidden)),
        }


def as_stored(states: torch.Tensor) -> npt.NDArray[Any]:
    """States or a matrix in the NumPy type of `STATES`."""
    kept = states.cpu()
    array: npt.NDArray[Any] = (
        kept.view(torch.uint16) if kept.dtype == torch.bfloat16 else kept
    ).numpy()
    return array


def hash_of_matrix(linear: Any) -> str:
    """SHA-256 of an output matrix; `UserError` where there is a bias, which no record holds."""
    if linear.bias is not None:
        raise UserError(
            "this model's output layer has a bias, which no record holds; take a model whose "
            "output layer has none"
        )
    weight = linear.weight.detach()
    # Under FSDP2 each rank holds some of its rows.
    matrix = as_stored(weight.full_tensor() if hasattr(weight, "full_tensor") else weight)
    return hashlib.sha256(np.ascontiguousarray(matrix).data).hexdigest()
