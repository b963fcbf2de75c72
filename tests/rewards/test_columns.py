"""Columns that a head or a loss makes of the answers before training."""

import numpy as np
import pytest

from finegrain.rewards.columns import prepare_columns
from finegrain.rewards.step import Step
from finegrain.types import TokenColumns
from tests.rewards.answers import Answers

VALUES = [np.array([1.0, 2.0]), np.array([]), np.array([3.0])]


@pytest.mark.parametrize("name", ["weight", "reward", "segment"])
def test_one_column_and_the_others_absent(name: str) -> None:
    made = TokenColumns.of(**{name: VALUES})
    for other in ("weight", "reward", "segment"):
        found = getattr(made, other)
        if other == name:
            assert isinstance(found, list)
            assert all(own is given for own, given in zip(found, VALUES, strict=True))
        else:
            assert found == [None, None, None]
    assert made.annotated == [True, True, True]


def test_several_columns() -> None:
    other = [np.array([5.0, 6.0]), np.array([]), np.array([7.0])]
    made = TokenColumns.of(segment=VALUES, reward=other)
    assert (made.weight, made.segment[2], made.reward[2]) == ([None] * 3, VALUES[2], other[2])


def test_the_part_that_makes_columns_is_asked_with_the_answers() -> None:
    numbers, labels = [np.array([0, 0])], [np.array([1.0, 1.0])]
    answers = Answers(roles=("answer",), steps={"answer": (numbers, labels)})
    for makers in ([Step().prepare, None], [None, Step().prepare]):
        made = prepare_columns(makers, answers)
        assert list(made) == ["answer"]
        assert made["answer"].segment[0] is numbers[0]
    assert prepare_columns([None, None], answers) == {}
    with pytest.raises(AssertionError, match=r"^head and loss both make the token columns reward, segment$"):
        prepare_columns([Step().prepare, Step().prepare], answers)
