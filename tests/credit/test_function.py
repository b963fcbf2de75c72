"""A user's own function: weights as given, and errors that name the row."""

from dataclasses import replace

import numpy as np
import pytest

from finegrain.credit.function import Function
from finegrain.errors import CreditError, UsageError
from tests.credit.fake import FakeContext, pair_context

CONTEXT = pair_context([np.zeros(4), np.zeros(2)], [np.zeros(3), np.zeros(3)])


def with_functions(chosen: list, rejected: list) -> FakeContext:
    return replace(CONTEXT, functions={"chosen": chosen, "rejected": rejected})


def test_worked() -> None:
    context = with_functions([[(1, 3, 0.25)], None], [[], [(0, 1, 2.0)]])
    columns = Function(path="mine.py:weigh").prepare(context)
    assert columns["chosen"].weight[0].tolist() == [1.0, 0.25, 0.25, 1.0]
    assert columns["chosen"].weight[1] is None
    assert columns["chosen"].annotated == [True, False]
    assert [weight.tolist() for weight in columns["rejected"].weight] == [[1, 1, 1], [2, 1, 1]]
    assert columns["rejected"].reward == columns["rejected"].segment == [None, None]
    assert Function(path="mine.py:weigh", outside=0.0).prepare(context)["chosen"].weight[0].tolist() == [0.0, 0.25, 0.25, 0.0]


def test_off_the_mask_is_0() -> None:
    context = with_functions([[(0, 4, 0.5)], None], [None, None])
    context.role_masks["chosen"][0][1] = False
    try:
        assert Function(path="f.py:f").prepare(context)["chosen"].weight[0].tolist() == [0.5, 0.0, 0.5, 0.5]
    finally:
        context.role_masks["chosen"][0][1] = True


@pytest.mark.parametrize("weight", [-0.1, np.nan, np.inf])
def test_weights_that_cannot_be(weight: float) -> None:
    with pytest.raises(CreditError, match=r"mine.py:weigh returned a weight for row 1, rejected, that is negative or not finite"):
        Function(path="mine.py:weigh").prepare(with_functions([[], []], [[], [(0, 1, weight)]]))


def test_nothing_at_all() -> None:
    with pytest.raises(UsageError, match=r"^credit:function needs your function: --credit\.path file\.py:name$"):
        Function().prepare(with_functions([[], []], [[], []]))
    with pytest.raises(CreditError, match="None for every answer"):
        Function(path="f.py:f").prepare(with_functions([None, None], [None, None]))
    with pytest.raises(CreditError, match="every token weight 0"):
        Function(path="f.py:f", outside=0.0).prepare(with_functions([[], []], [[], []]))
    for outside in (-1.0, np.nan, np.inf):
        with pytest.raises(UsageError, match="outside"):
            Function(path="f.py:f", outside=outside)
