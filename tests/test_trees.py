"""Token trees give the numbers of separate sequences, and batches hold each tree once."""

import math
from functools import cache
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.model.forward import row_logits
from regrow.model.scoring import ROWS, row_parts, score_choices
from regrow.model.trees import ENCODED, Tree, build_trees, by_tokens, keep_branch, pack
from regrow.support.errors import UserError
from regrow.tasks.prompts import context
from regrow.tasks.questions import Question
from tiny_models import (
    ARCHITECTURES,
    QUESTIONS,
    plain_logits,
    plain_scores,
    sequences,
    tiny_config,
    tiny_model,
    tiny_tokenizer,
)

TOKENIZERS = {
    "plain": {},
    "bos": {"bos": True},
    "eos": {"eos": True},
    "bos and eos": {"bos": True, "eos": True},
    "across words": {"across_words": True},
}


@cache
def model_of(architecture: str, dtype: torch.dtype = torch.float32) -> Any:
    return tiny_model(tiny_config(architecture), dtype)


@cache
def scores_of(architecture: str, format: Any, tokenizer: str = "plain") -> list[list[float]]:
    encode = tiny_tokenizer(**TOKENIZERS[tokenizer])
    return [plain_scores(model_of(architecture), encode, q, format) for q in QUESTIONS]


def assert_close(found: list[list[float]], expected: list[list[float]], tolerance: float) -> None:
    assert [len(scores) for scores in found] == [len(scores) for scores in expected]
    for scores, references in zip(found, expected, strict=True):
        np.testing.assert_allclose(scores, references, rtol=0, atol=tolerance)


# Scores


@pytest.mark.parametrize("batch_tokens", [1, 64, 2048])
@pytest.mark.parametrize("format", ["cloze", "letters"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tree_scores_equal_scores_of_separate_sequences(
    architecture: str, format: Any, batch_tokens: int
) -> None:
    trees = build_trees(tiny_tokenizer(), QUESTIONS, format)
    found = score_choices(model_of(architecture), trees, batch_tokens)
    assert_close(found, scores_of(architecture, format), 1e-4)


@pytest.mark.parametrize("row_tokens", [1, 100, 128, 4096])
@pytest.mark.parametrize("format", ["cloze", "letters"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tree_logits_equal_those_of_separate_sequences_in_double_precision(
    architecture: str, format: Any, row_tokens: int
) -> None:
    model = model_of(architecture, torch.float64)
    trees = build_trees(tiny_tokenizer(), QUESTIONS, format)
    batch = pack(trees, row_tokens)
    # The softmax of transformers' eager attention is in single precision whatever the model's.
    tolerance = 1e-5 if model.config._attn_implementation == "eager" else 1e-9
    with torch.no_grad():
        logits = row_logits(model, batch, torch.arange(batch.input_ids.numel()))
    for question, tree, start in zip(QUESTIONS, trees, batch.starts, strict=True):
        shared, wholes = sequences(tiny_tokenizer(), question, format)
        for tokens, (nodes, targets) in zip(wholes, tree.branch_targets(), strict=True):
            assert targets == tokens[shared:]
            expected = plain_logits(model, tokens)[shared - 1 : -1]
            torch.testing.assert_close(logits[nodes + start], expected, rtol=0, atol=tolerance)
        # The context is the same in all of them.
        whole = logits[start : start + shared]
        torch.testing.assert_close(
            whole, plain_logits(model, wholes[0])[:shared], rtol=0, atol=tolerance
        )


def test_eager_attention_gives_the_same_scores() -> None:
    model = tiny_model(tiny_config("llama", attn_implementation="eager"))
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    assert_close(score_choices(model, trees), scores_of("llama", "cloze"), 1e-4)


@pytest.mark.parametrize("architecture", ["mistral", "gemma2"])
def test_a_tree_longer_than_a_sliding_window_is_refused(architecture: str) -> None:
    model = tiny_model(tiny_config(architecture, sliding_window=16))
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    with pytest.raises(UserError, match="sliding_window is 16"):
        score_choices(model, trees)


@pytest.mark.parametrize("format", ["cloze", "letters"])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_scores_hold_for_tokenizers_that_frame_and_merge(tokenizer: str, format: Any) -> None:
    encode = tiny_tokenizer(**TOKENIZERS[tokenizer])
    trees = build_trees(encode, QUESTIONS, format)
    found = score_choices(model_of("llama"), trees)
    assert_close(found, scores_of("llama", format, tokenizer), 1e-4)


def test_one_question_alone_scores_as_among_others() -> None:
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    alone = [score_choices(model_of("llama"), [tree])[0] for tree in trees]
    assert_close(alone, scores_of("llama", "cloze"), 1e-4)


@pytest.mark.parametrize("rows", [1, 2, ROWS, ROWS + 1, 3 * ROWS - 1])
def test_a_sum_over_the_vocabulary_is_the_same_in_parts(rows: int) -> None:
    logits = torch.randn(rows, 50_000, generator=torch.Generator().manual_seed(rows))
    parts = row_parts(logits)
    assert max(map(len, parts)) <= ROWS
    assert min(map(len, parts)) >= min(rows, 2)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(torch.cat([part.logsumexp(-1) for part in parts]), logits.logsumexp(-1))
    finally:
        torch.set_num_threads(threads)


def test_trees_of_many_questions_are_those_of_each_alone() -> None:
    tokenizer = tiny_tokenizer()
    count = ENCODED // 3 + 2  # of three texts each
    asked = [Question(f"{n}", f"Where is {n}?", (f"in {n}", "out")) for n in range(count)]
    trees = build_trees(tokenizer, asked, "cloze")
    assert len(trees) == len(asked)
    for place in (0, count - 4, count - 3, count - 2, count - 1):
        assert trees[place] == build_trees(tokenizer, [asked[place]], "cloze")[0]


def test_equal_choices_get_equal_scores() -> None:
    trees = build_trees(tiny_tokenizer(), QUESTIONS, "cloze")
    scores = score_choices(model_of("llama"), trees)[[q.id for q in QUESTIONS].index("repeated")]
    assert scores[0] == scores[2]


def test_no_questions_have_no_scores() -> None:
    assert score_choices(model_of("llama"), []) == []


# Trees


@pytest.mark.parametrize("format", ["cloze", "letters"])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_branch_behind_its_context_is_the_text_in_the_tokenizers_own_tokens(
    tokenizer: str, format: Any
) -> None:
    encode = tiny_tokenizer(**TOKENIZERS[tokenizer])
    for question, tree in zip(QUESTIONS, build_trees(encode, QUESTIONS, format), strict=True):
        shared, wholes = sequences(encode, question, format)
        assert len(tree.context) == shared
        assert [tree.context + branch for branch in tree.branches] == wholes


def test_a_bos_token_stands_once_before_the_context_and_an_eos_token_nowhere() -> None:
    encode = tiny_tokenizer(bos=True, eos=True)
    for tree in build_trees(encode, QUESTIONS, "cloze"):
        every = [*tree.context, *(token for branch in tree.branches for token in branch)]
        assert tree.context[0] == encode.bos_token_id
        assert every.count(encode.bos_token_id) == 1
        assert encode.eos_token_id not in every


def test_a_tokenizer_that_merges_across_the_boundary_keeps_its_tokens() -> None:
    encode = tiny_tokenizer(across_words=True)
    question = Question("merged", "Where do fish swim?", ("sea", "bank"))
    (tree,) = build_trees(encode, [question], "cloze")
    alone = encode(context(question, "cloze"))["input_ids"]
    assert len(tree.context) < len(alone), "nothing was merged: this test would show nothing"
    assert tree.context == tuple(alone[: len(tree.context)])
    assert encode.decode(tree.context + tree.branches[0]).endswith("Answer: sea")


def test_single_token_choices_add_no_nodes() -> None:
    (tree,) = build_trees(tiny_tokenizer(), [QUESTIONS[1]], "cloze")
    assert [len(branch) for branch in tree.branches] == [1, 1]
    assert tree.nodes == len(tree.context)


def test_keeping_a_branch_keeps_the_context_and_that_branch() -> None:
    tree = Tree((1, 2), ((3,), (4, 5)))
    assert keep_branch(tree, 1) == Tree((1, 2), ((4, 5),))


tokens = st.integers(2, 99)
branches = st.lists(st.lists(tokens, min_size=1, max_size=4).map(tuple), min_size=1, max_size=4)
some_trees = st.builds(
    Tree,
    st.lists(tokens, min_size=1, max_size=9).map(tuple),
    branches.map(tuple),
)


def chains(tree: Tree) -> list[list[int]]:
    """For each branch, the nodes that are read before and at its last node, in order."""
    found = []
    start = len(tree.context)
    for branch in tree.branches:
        stop = start + len(branch) - 1
        found.append([*range(len(tree.context)), *range(start, stop)])
        start = stop
    return found


@given(some_trees)
@settings(deadline=None)
def test_a_node_sees_just_what_is_before_it_in_its_own_sequence(tree: Tree) -> None:
    inputs, positions, sees = tree.inputs()
    expected = np.zeros((tree.nodes, tree.nodes), dtype=bool)
    for chain, branch in zip(chains(tree), tree.branches, strict=True):
        assert inputs[chain].tolist() == [*tree.context, *branch[:-1]]
        assert positions[chain].tolist() == list(range(len(chain)))
        for place, node in enumerate(chain):
            expected[node, chain[: place + 1]] = True
    np.testing.assert_array_equal(sees, expected)


@given(some_trees)
@settings(deadline=None)
def test_rows_are_the_nodes_that_predict_a_choices_tokens_or_all_nodes(tree: Tree) -> None:
    predicting = {node for nodes, _ in tree.branch_targets() for node in nodes}
    assert set(tree.rows("answer")) == predicting
    assert list(tree.rows("all")) == list(range(tree.nodes))


# Batches


@given(st.lists(some_trees, min_size=1, max_size=12), st.integers(1, 60))
@settings(deadline=None)
def test_pack_puts_every_tree_once_without_overlap_and_none_sees_another(
    trees: list[Tree], row_tokens: int
) -> None:
    batch = pack(trees, row_tokens)
    rows, length = batch.input_ids.shape
    assert batch.position_ids.shape == (rows, length)
    assert batch.attention_mask.shape == (rows, 1, length, length)
    longest, nodes = max(tree.nodes for tree in trees), sum(tree.nodes for tree in trees)
    assert length < max(row_tokens * 1.5, longest) + longest
    if len(trees) == 1 or nodes <= row_tokens:
        assert rows * length == nodes, "one row needs no padding"
    expected = np.zeros((rows * length, rows * length), dtype=bool)
    owners = np.full(rows * length, -1)
    for number, (tree, start) in enumerate(zip(trees, batch.starts, strict=True)):
        stop = start + tree.nodes
        assert start // length == (stop - 1) // length, "a tree lies in two rows"
        assert (owners[start:stop] == -1).all(), "two trees overlap"
        owners[start:stop] = number
        inputs, positions, sees = tree.inputs()
        assert batch.input_ids.flatten()[start:stop].tolist() == inputs.tolist()
        assert batch.position_ids.flatten()[start:stop].tolist() == positions.tolist()
        expected[start:stop, start:stop] = sees
    padding = np.flatnonzero(owners == -1)
    expected[padding, padding] = True
    for row in range(rows):
        here = slice(row * length, (row + 1) * length)
        np.testing.assert_array_equal(batch.attention_mask[row, 0].numpy(), expected[here, here])


@given(st.lists(some_trees, min_size=1, max_size=12), st.integers(1, 60))
@settings(deadline=None)
def test_rows_are_as_many_as_asked_for_and_no_longer_than_they_have_to_be(
    trees: list[Tree], row_tokens: int
) -> None:
    lengths = sorted((tree.nodes for tree in trees), reverse=True)
    wanted = max(1, round(sum(lengths) / row_tokens))
    for capacity in count(max(lengths[0], math.ceil(sum(lengths) / wanted))):
        # First-fit decreasing: the longest first, each into the first row with room.
        rows: list[int] = []
        for length in lengths:
            fitting = [row for row, used in enumerate(rows) if used + length <= capacity]
            if fitting:
                rows[fitting[0]] += length
            else:
                rows.append(length)
        if len(rows) <= wanted:
            break
    assert pack(trees, row_tokens).input_ids.shape == (len(rows), max(rows))


@given(st.lists(some_trees, max_size=20), st.integers(1, 80))
@settings(deadline=None)
def test_batches_by_tokens_hold_every_tree_once_within_the_budget(
    trees: list[Tree], budget: int
) -> None:
    batches = by_tokens(trees, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(trees)))
    for batch in batches:
        assert batch
        assert len(batch) == 1 or sum(trees[index].nodes for index in batch) <= budget
    assert batches == by_tokens(list(trees), budget)
    # The longest first, of equal ones the first, and none in a new batch that had room before.
    in_order = [index for batch in batches for index in batch]
    assert in_order == sorted(range(len(trees)), key=lambda index: (-trees[index].nodes, index))
    for batch, (following, *_) in pairwise(batches):
        assert sum(trees[index].nodes for index in (*batch, following)) > budget


def test_a_tree_longer_than_a_row_and_a_budget_is_still_read() -> None:
    long, short = Tree(tuple(range(50)), ((1, 2),)), Tree((1,), ((2,),))
    assert pack([short, long], 8).input_ids.shape == (2, 51)
    assert sorted(by_tokens([short, long], 8)) == [[0], [1]]
