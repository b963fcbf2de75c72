"""Steps from spans to tokens, and how steps become the answer's score."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from finegrain.data.records import Response
from finegrain.errors import DataError
from finegrain.ops.readout import Minimum
from finegrain.recipes.training.answer_context import steps_on_tokens
from finegrain.rewards.heads import sequence_score
from finegrain.rewards.step import Product, Step
from finegrain.types import CharSpan
from tests.rewards.answers import Answers
from tests.rewards.sides import side

TEXT = "one.\ntwo\nthree"
"""Steps 0..4, 5..8, 9..14."""
SPANS = [CharSpan(0, 4, 1.0), CharSpan(5, 8, 0.0), CharSpan(9, 14, -1.0)]


def response(offsets: list[tuple[int, int]]) -> Response:
    count = len(offsets)
    return Response(np.zeros(count, np.int32), np.ones(count, bool), np.array(offsets, np.int32).reshape(-1, 2), TEXT)


def test_tokens_of_steps() -> None:
    """`one`, `.\\n`, `two`, `\\n`, `thr`, `ee`, EOS: a break and EOS belong to no step."""
    numbers, labels = steps_on_tokens(SPANS, response([(0, 3), (3, 5), (5, 8), (8, 9), (9, 12), (12, 14), (0, 0)]))
    assert numbers.tolist() == [0, 0, 1, -1, 2, 2, -1]
    assert labels.tolist() == [1, 1, 0, 0, -1, -1, 0]


def test_a_step_that_was_cut_is_not_judged() -> None:
    numbers, labels = steps_on_tokens(SPANS, response([(0, 3), (3, 5), (5, 8), (8, 9), (9, 12)]))
    assert numbers.tolist() == [0, 0, 1, -1, -1]
    assert labels.tolist() == [1, 1, 0, 0, 0]
    assert [part.tolist() for part in steps_on_tokens(SPANS, response([]))] == [[], []]
    assert steps_on_tokens([], response([(0, 14)]))[0].tolist() == [-1]


def test_columns_of_labelled_steps() -> None:
    numbers, labels = [np.array([-1, -1]), np.array([0, -1])], [np.array([0.0, 0.0]), np.array([-1.0, 0.0])]
    made = Step().prepare(Answers(roles=("answer",), steps={"answer": (numbers, labels)}))["answer"]
    assert made.segment == numbers
    assert made.reward == labels
    assert made.weight == [None, None]


def test_answers_without_a_labelled_step_are_refused_for_training_alone() -> None:
    nothing = {"answer": ([np.array([-1, -1])], [np.array([0.0, 0.0])])}
    with pytest.raises(DataError, match="no answer of role 'answer' has a labelled step"):
        Step().prepare(Answers(roles=("answer",), steps=nothing))
    assert Step().prepare(Answers(roles=("answer",), steps=nothing, trains=False))["answer"].segment[0] is nothing["answer"][0][0]


JUDGED = replace(side([[[9.0], [2.0], [9.0], [-1.0]], [[0.5]]]), segment=torch.tensor([[0, 0, -1, 1], [-1, -1, -1, -1]]))


def test_readouts() -> None:
    right = lambda odds: 1 / (1 + math.exp(-odds))
    assert sequence_score(Step(), JUDGED).mean.tolist() == pytest.approx([math.log(right(2.0) * right(-1.0)), 0.0])
    assert sequence_score(Step(readout=Minimum()), JUDGED).mean.tolist() == [-1.0, 0.0]


def test_the_product_of_one_step_is_its_probability() -> None:
    values = torch.randn(5, 1, dtype=torch.float64)
    torch.testing.assert_close(Product()(values, torch.ones(5, 1, dtype=torch.bool)).exp(), torch.sigmoid(values[:, 0]))
