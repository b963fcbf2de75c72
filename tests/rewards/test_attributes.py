"""Several ratings at once: the weighted score, the error of each attribute, rows that nobody rated on one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from finegrain.errors import DataError, UsageError
from finegrain.rewards.attributes import AttributeRatings, Attributes, attribute_weights
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


def test_errors_have_the_outputs_precision() -> None:
    given = pair([4.0, 1.0], [0.0, math.nan])
    assert given.answer.outputs is not None
    narrow = Pair(sides={"answer": replace(given.answer, outputs=given.answer.outputs.float())}, columns=given.columns)
    assert {part.dtype for term in AttributeRatings()(TWO, narrow).values() for part in (term.value, term.count)} == {torch.float32}


def test_measures_are_distances_beside_the_medians() -> None:
    found = AttributeRatings().measures(TWO, pair([4.0, 1.0], [0.0, 1.0]))
    assert found["rating_error/helpfulness"].tolist() == [1.0, 0.0]
    assert found["rating_error/verbosity"].tolist() == [2.0, 3.0]
    assert found["rating_error"].tolist() == [1.5, 1.5]
    assert found["rating_error_of_median/helpfulness"].tolist() == [1.5, 1.5]


def test_columns_of_rows() -> None:
    """Medians are of those who rated; one rating is enough."""
    made = AttributeRatings().row_columns(
        TWO, {"rating/helpfulness": np.array([1.0, 2.0, 6.0]), "rating/verbosity": np.array([3.0, math.nan, math.nan])}
    )
    assert list(made) == ["attribute/helpfulness", "attribute_median/helpfulness", "attribute/verbosity", "attribute_median/verbosity"]
    assert made["attribute/helpfulness"].tolist() == [1.0, 2.0, 6.0]
    assert made["attribute_median/helpfulness"].tolist() == [2.0] * 3
    assert made["attribute_median/verbosity"].tolist() == [3.0] * 3


def test_what_is_said_of_each_attribute() -> None:
    assert (TWO.outputs, attribute_weights(TWO), attribute_weights(Attributes(names=("a", "b", "c", "d")))) == (2, (2.0, -0.5), (0.25,) * 4)
    judged = side(ANSWERS)
    assert judged.outputs is not None
    found = TWO.attributes(torch.where(judged.mask[..., None], judged.outputs, 0.0), judged.mask)
    assert {name: values.tolist() for name, values in found.items()} == {"helpfulness": [3.0, 1.0], "verbosity": [2.0, 4.0]}
    weight = torch.randn(2, 3)
    assert TWO.stock(weight) is weight


def test_measures_of_a_rating_that_is_missing_are_nan() -> None:
    found = AttributeRatings().measures(TWO, pair([4.0, 1.0], [0.0, math.nan]))
    assert found["rating_error/verbosity"].isnan().tolist() == [False, True]
    assert found["rating_error"].tolist() == [1.5, 0.0], "the mean of those that were rated"
    assert found["rating_error_of_median/verbosity"].isnan().tolist() == [False, True]


def test_messages() -> None:
    with pytest.raises(UsageError, match=r"--head.names must be ratings that every row has; found: none"):
        AttributeRatings().row_columns(TWO, {"label": np.ones(2)})
    with pytest.raises(UsageError, match=r"found: a, b$"):
        AttributeRatings().row_columns(TWO, {"rating/b": np.ones(2), "rating/a": np.ones(2)})
    with pytest.raises(DataError, match="ratings of 'verbosity' are infinite, or all are missing"):
        AttributeRatings().row_columns(TWO, {"rating/helpfulness": np.ones(2), "rating/verbosity": np.array([1.0, math.inf])})
    with pytest.raises(UsageError, match="each once; got none"):
        Attributes(names=())
    with pytest.raises(UsageError, match=r"each once; got a, $"):
        Attributes(names=("a", ""))
    with pytest.raises(UsageError, match=r"got 3 for 2 attributes \(a, b\)"):
        Attributes(names=("a", "b"), weights=(1.0, 2.0, 3.0))
    assert Attributes(names=("a", "b"), weights=(0.0, 1.0)).weights == (0.0, 1.0)


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="did you mean helpfulness"):
        AttributeRatings().row_columns(Attributes(names=("helpfullness",)), {"rating/helpfulness": np.ones(2)})
    with pytest.raises(DataError, match="all are missing"):
        AttributeRatings().row_columns(Attributes(names=("a",)), {"rating/a": np.array([math.nan])})
    for wrong in ({"names": ()}, {"names": ("a", "a")}, {"names": ("a", "b"), "weights": (1.0,)}, {"names": ("a",), "weights": (0.0,)}):
        with pytest.raises(UsageError, match="--head"):
            Attributes(**wrong)
    with pytest.raises(UsageError, match="AttributeRatings"):
        RewardFit(TWO, BradleyTerry())
    with pytest.raises(UsageError, match="Attributes head"):
        RewardFit(Token(), AttributeRatings())
