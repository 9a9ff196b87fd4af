"""Accuracy, gold NLL and the baselines against plain loops, on questions of unequal size."""

import json
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.evaluate.accuracy import (
    chance,
    chosen,
    gold_nll,
    log_distribution,
    longest_choice,
    right,
    summary,
)
from regrow.evaluate.predictions import Predictions

Question = tuple[list[tuple[float, int]], int, str]


@st.composite
def question(draw: st.DrawFn) -> Question:
    choices = draw(
        st.lists(st.tuples(st.floats(-200, 0), st.integers(1, 60)), min_size=1, max_size=6)
    )
    return (
        choices,
        draw(st.integers(0, len(choices) - 1)),
        draw(st.sampled_from(["test", "calibration"])),
    )


def predictions(questions: list[Question]) -> Predictions:
    return Predictions(
        ids=[str(index) for index in range(len(questions))],
        splits=[split for _, _, split in questions],
        answers=[answer for _, answer, _ in questions],
        log_probs=[[log_prob for log_prob, _ in choices] for choices, _, _ in questions],
        tokens=[[1] * len(choices) for choices, _, _ in questions],
        characters=[[size for _, size in choices] for choices, _, _ in questions],
        parameters=10,
        mlp_parameters=6,
    )


@given(st.lists(question(), max_size=12))
@settings(deadline=None)
def test_equal_to_plain_loops(questions: list[Question]) -> None:
    made = predictions(questions)
    for index, (choices, answer, _) in enumerate(questions):
        sums = [log_prob for log_prob, _ in choices]
        rates = [log_prob / size for log_prob, size in choices]
        sizes = [size for _, size in choices]
        assert chosen(made, "raw")[index] == sums.index(max(sums))
        assert chosen(made, "per_character")[index] == rates.index(max(rates))
        assert right(made, "raw")[index] == (sums.index(max(sums)) == answer)
        longest = [place for place, size in enumerate(sizes) if size == max(sizes)]
        assert longest_choice(made)[index] == (answer in longest) / len(longest)
        assert chance(made)[index] == 1 / len(choices)
        total = math.fsum(math.exp(value - max(sums)) for value in sums)
        assert gold_nll(made, "raw")[index] == pytest.approx(
            math.log(total) + max(sums) - sums[answer], abs=1e-9
        )
        assert np.exp(log_distribution(made, "raw")[index]).sum() == pytest.approx(1)


@given(st.lists(question(), min_size=1, max_size=8), st.integers(-64, 64))
@settings(deadline=None)
def test_a_constant_on_all_choices_of_a_question_changes_nothing(
    questions: list[Question], constant: int
) -> None:
    # Powers of two that the sums hold exactly: a constant that rounds can make or break a tie.
    coarse: list[Question] = [
        ([(round(value * 4) / 4, size) for value, size in choices], answer, split)
        for choices, answer, split in questions
    ]
    moved: list[Question] = [
        ([(value + constant, size) for value, size in choices], answer, split)
        for choices, answer, split in coarse
    ]
    before, after = predictions(coarse), predictions(moved)
    assert (right(before, "raw") == right(after, "raw")).all()
    np.testing.assert_allclose(gold_nll(before, "raw"), gold_nll(after, "raw"), atol=1e-9)


def test_ties_take_the_first_choice() -> None:
    tied: Question = ([(-2.0, 4), (-1.0, 2), (-1.0, 2)], 1, "test")
    assert chosen(predictions([tied]), "raw") == 1
    assert chosen(predictions([tied]), "per_character") == 0


@given(st.lists(question(), max_size=8))
@settings(deadline=None)
def test_summary_is_flat_json_of_the_splits_that_exist(questions: list[Question]) -> None:
    numbers = summary(predictions(questions))
    json.dumps(numbers, allow_nan=False)
    assert {name.split(".")[0] for name in numbers if "." in name} == {
        split for _, _, split in questions
    }
    assert numbers["parameters"] == 10
    for name, value in numbers.items():
        if "accuracy" in name:
            assert 0 <= value <= 1


@given(st.lists(question(), min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_questions_changes_no_summary(
    questions: list[Question], random: Random
) -> None:
    shuffled = questions[:]
    random.shuffle(shuffled)
    before, after = summary(predictions(questions)), summary(predictions(shuffled))
    assert before == pytest.approx(after)
