"""Several ratings at once: the weighted score, the error of each attribute, rows that nobody rated on one."""

import math

import numpy as np
import pytest
import torch

from finegrain.errors import DataError, UsageError
from finegrain.rewards.attributes import AttributeRatings, Attributes
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.heads import sequence_score
from finegrain.rewards.token import Token
from finegrain.types import Pair
from tests.rewards.sides import side

TWO = Attributes(names=("helpfulness", "verbosity"), weights=(2.0, -0.5))
ANSWERS = [[[9.0, 9.0], [3.0, 2.0]], [[1.0, 4.0]]]
"""Outputs of two answers; the last tokens' count."""


def test_by_hand() -> None:
    assert sequence_score(TWO, side(ANSWERS)).mean.tolist() == [5.0, 0.0]
    plain = Attributes(names=("helpfulness", "verbosity"))
    assert sequence_score(plain, side(ANSWERS)).mean.tolist() == [2.5, 2.5]


def pair(helpfulness: list[float], verbosity: list[float]) -> Pair:
    columns = AttributeRatings().row_columns(
        TWO, {"rating/helpfulness": np.array(helpfulness), "rating/verbosity": np.array(verbosity), "rating/other": np.array([0.0, 0.0])}
    )
    return Pair(sides={"answer": side(ANSWERS)}, columns={name: torch.from_numpy(values) for name, values in columns.items()})


def test_each_attribute_has_its_own_error_and_denominator() -> None:
    """Errors 3 - 4 and 1 - 1 of helpfulness, 2 - 0 of verbosity, whose second rating is missing."""
    terms = AttributeRatings()(TWO, pair([4.0, 1.0], [0.0, math.nan]))
    assert {name: (term.value.tolist(), term.count.tolist(), term.coefficient) for name, term in terms.items()} == {
        "helpfulness": ([1.0, 0.0], [1.0, 1.0], 0.5),
        "verbosity": ([4.0, 0.0], [1.0, 0.0], 0.5),
    }


def test_a_missing_rating_has_no_gradient() -> None:
    given = pair([4.0, 1.0], [0.0, math.nan])
    outputs = given.answer.outputs
    assert outputs is not None
    outputs.requires_grad_(True)
    terms = AttributeRatings()(TWO, given)
    torch.stack([term.value.sum() for term in terms.values()]).sum().backward()
    assert outputs.grad is not None
    assert outputs.grad[1].abs().sum() == 0
    assert outputs.grad[0, 1].tolist() == [-2.0, 4.0]


def test_measures_are_distances_beside_the_medians() -> None:
    found = AttributeRatings().measures(TWO, pair([4.0, 1.0], [0.0, 1.0]))
    assert found["rating_error/helpfulness"].tolist() == [1.0, 0.0]
    assert found["rating_error/verbosity"].tolist() == [2.0, 3.0]
    assert found["rating_error_of_median/helpfulness"].tolist() == [1.5, 1.5]


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="did you mean helpfulness"):
        AttributeRatings().row_columns(Attributes(names=("helpfullness",)), {"rating/helpfulness": np.ones(2)})
    with pytest.raises(DataError, match="nobody rated"):
        AttributeRatings().row_columns(Attributes(names=("a",)), {"rating/a": np.array([math.nan])})
    for wrong in ({"names": ()}, {"names": ("a", "a")}, {"names": ("a", "b"), "weights": (1.0,)}, {"names": ("a",), "weights": (0.0,)}):
        with pytest.raises(UsageError, match="--head"):
            Attributes(**wrong)
    with pytest.raises(UsageError, match="AttributeRatings"):
        RewardFit(TWO, BradleyTerry())
    with pytest.raises(UsageError, match="Attributes head"):
        RewardFit(Token(), AttributeRatings())
