"""A question's token tree: the context once, one branch a choice; and batches of trees.

All choices of a question share its context, so a tree runs the context through the model once.
The last token of a branch predicts nothing that is scored and is left out. Several trees are packed
into one row, behind an attention mask that lets a token see its own context and branch only, so
that a batch holds next to no padding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from regrow.tasks.prompts import Format
from regrow.tasks.prompts import context as context_of
from regrow.tasks.prompts import continuations as continuations_of
from regrow.tasks.questions import Question

Positions = Literal["answer", "all"]
Integers = npt.NDArray[np.int64]

# Trees are packed into rows of about this many tokens: short enough that masked attention between
# trees costs little, long enough that rows come out equally full.
ROW_TOKENS = 160

# Texts that are encoded at once: what a tokenizer returns of one takes a hundred times the room of
# its token ids.
ENCODED = 5000


@dataclass(frozen=True, slots=True)
class Tree:
    """Token ids of a context and of each branch.

    Its nodes are the tokens that the model reads: the context, then each branch but its last token.
    """

    context: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]

    @property
    def nodes(self) -> int:
        """The number of tokens that the model reads."""
        return len(self.context) + sum(len(branch) - 1 for branch in self.branches)

    def inputs(self) -> tuple[Integers, Integers, npt.NDArray[np.bool_]]:
        """Token ids [nodes], position ids [nodes] and who sees whom [nodes, nodes]."""
        stem = len(self.context)
        tokens = list(self.context)
        positions = list(range(stem))
        sees = np.zeros((self.nodes, self.nodes), dtype=np.bool_)
        sees[:, :stem] = True
        sees[:stem, :stem] = np.tri(stem, dtype=np.bool_)
        for branch in self.branches:
            start, length = len(tokens), len(branch) - 1
            tokens += branch[:-1]
            positions += range(stem, stem + length)
            sees[start : start + length, start : start + length] = np.tri(length, dtype=np.bool_)
        return np.array(tokens), np.array(positions), sees

    def rows(self, positions: Positions) -> range:
        """The nodes whose predictions count.

        `answer`: the last token of the context and the nodes of the branches, which predict the
        choices' tokens; `all`: every node.
        """
        return range(0 if positions == "all" else len(self.context) - 1, self.nodes)

    def branch_targets(self) -> list[tuple[list[int], tuple[int, ...]]]:
        """For each branch, the nodes that predict its tokens, and these tokens."""
        targets = []
        start = len(self.context)
        for branch in self.branches:
            own = range(start, start + len(branch) - 1)
            targets.append(([len(self.context) - 1, *own], branch))
            start += len(branch) - 1
        return targets


def build_trees(tokenizer: Any, questions: Sequence[Question], prompt_format: Format) -> list[Tree]:
    """The tree of every question, all choices in their order.

    The context is the longest prefix that the tokens of the context alone and of every
    context + choice share, so that a tokenizer which merges across the boundary keeps its own
    tokens.
    """
    choices = [continuations_of(question, prompt_format) for question in questions]
    texts: list[str] = []
    for question, branches in zip(questions, choices, strict=True):
        context = context_of(question, prompt_format)
        texts += [context, *(context + branch for branch in branches)]
    encoded = _encode(tokenizer, texts)
    trees = []
    for branches in choices:
        stem, *wholes = islice(encoded, 1 + len(branches))
        shared = _shared_prefix([stem, *wholes])
        trees.append(Tree(stem[:shared], tuple(whole[shared:] for whole in wholes)))
    return trees


def keep_branch(tree: Tree, branch: int) -> Tree:
    """The same tree with one branch only: a context and its answer."""
    return Tree(tree.context, (tree.branches[branch],))


def _encode(tokenizer: Any, texts: list[str]) -> Iterator[tuple[int, ...]]:
    # What the tokenizer puts before a text (as a BOS token) is part of the context; what it puts
    # behind one (as an EOS token) would come between the context and the choice.
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed = tokenizer("a")["input_ids"]
    leading = tuple(framed[: framed.index(bare[0])]) if len(framed) > len(bare) else ()
    for start in range(0, len(texts), ENCODED):
        encoded = tokenizer(texts[start : start + ENCODED], add_special_tokens=False)["input_ids"]
        yield from (leading + tuple(tokens) for tokens in encoded)


def _shared_prefix(sequences: Sequence[tuple[int, ...]]) -> int:
    # Every branch keeps a token of its own, and so does the context.
    longest = min(len(sequences[0]), *(len(sequence) - 1 for sequence in sequences[1:]))
    for length in range(longest):
        if len({sequence[length] for sequence in sequences}) > 1:
            return length
    return longest


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed trees, ready for a model."""

    input_ids: torch.Tensor  # [rows, length] int64
    position_ids: torch.Tensor  # [rows, length] int64
    attention_mask: torch.Tensor  # [rows, 1, length, length] bool, true where a token sees another
    starts: Integers  # [trees], where in the flattened [rows * length] each tree begins


def pack(trees: Sequence[Tree], row_tokens: int = ROW_TOKENS) -> Batch:
    """Pack trees into equally full rows of about `row_tokens` tokens, or of the longest tree."""
    rows = _fill_rows([tree.nodes for tree in trees], row_tokens)
    length = max(sum(trees[index].nodes for index in row) for row in rows)
    input_ids = np.zeros((len(rows), length), dtype=np.int64)
    position_ids = np.zeros((len(rows), length), dtype=np.int64)
    # A padding token sees itself, for a softmax over nothing is NaN.
    mask = np.repeat(np.eye(length, dtype=np.bool_)[None], len(rows), axis=0)
    starts = np.zeros(len(trees), dtype=np.int64)
    for row, members in enumerate(rows):
        column = 0
        for index in members:
            tokens, positions, sees = trees[index].inputs()
            stop = column + len(tokens)
            input_ids[row, column:stop] = tokens
            position_ids[row, column:stop] = positions
            mask[row, column:stop, column:stop] = sees
            starts[index] = row * length + column
            column = stop
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(position_ids),
        torch.from_numpy(mask[:, None]),
        starts,
    )


def flat_rows(batch: Batch, trees: Sequence[Tree], positions: Positions) -> torch.Tensor:
    """Where in the flattened batch the nodes of `tree.rows(positions)` lie, tree by tree: [n]."""
    rows = [
        int(start) + node
        for tree, start in zip(trees, batch.starts, strict=True)
        for node in tree.rows(positions)
    ]
    return torch.tensor(rows, dtype=torch.int64)


def _fill_rows(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Which trees share a row: as many rows as `row_tokens` asks for, as short as they can be."""
    wanted = max(1, round(sum(lengths) / row_tokens))
    capacity = max(*lengths, -(-sum(lengths) // wanted)) if len(lengths) > 1 else lengths[0]
    while len(rows := _first_fit(lengths, capacity)) > wanted:
        capacity += 1
    return rows


def _first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing into rows of `capacity` tokens."""
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        for row, space in enumerate(free):
            if lengths[index] <= space:
                rows[row].append(index)
                free[row] -= lengths[index]
                break
        else:
            rows.append([index])
            free.append(capacity - lengths[index])
    return rows


def by_tokens(trees: Sequence[Tree], batch_tokens: int) -> list[list[int]]:
    """Split trees into batches of at most `batch_tokens` nodes (or of one longer tree).

    Trees of like length come together; the order is fixed by lengths and places alone.
    """
    batches: list[list[int]] = []
    used = batch_tokens + 1
    for index in sorted(range(len(trees)), key=lambda index: -trees[index].nodes):
        if used + trees[index].nodes > batch_tokens:
            batches.append([])
            used = 0
        batches[-1].append(index)
        used += trees[index].nodes
    return batches
