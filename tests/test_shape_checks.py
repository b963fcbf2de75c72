"""The tests run under run-time checks: of types everywhere, of shapes where annotations name them."""

from typing import Any

import numpy as np
import pytest
import torch

from finegrain.configure import to_kebab
from finegrain.data.records import Response
from finegrain.ops.masked import masked_sum
from finegrain.train.batches import Step
from tests import type_checks


def test_functions_and_records_are_checked() -> None:
    other: Any = 3
    with pytest.raises(TypeError, match="type hint"):
        to_kebab(other)
    with pytest.raises(TypeError, match="type hint"):
        Step(0, 0.5, other, ())
    with pytest.raises(TypeError, match="size of dimension"):
        masked_sum(torch.zeros(2, 3), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(TypeError, match="size of dimension"):
        Response(np.zeros(3, dtype=np.int32), np.ones(2, dtype=np.bool_), np.zeros((3, 2), dtype=np.int32), "text")


def test_every_test_checks_the_first_calls_again() -> None:
    other: Any = 3
    for _ in range(type_checks.OFTEN):
        to_kebab("aName")
    with pytest.raises(TypeError, match="expected string"):
        to_kebab(other)  # its own error: the check has stepped aside
    type_checks.Checks.begin_test()
    with pytest.raises(TypeError, match="type hint"):
        to_kebab(other)


def test_every_making_of_an_inner_function_is_checked() -> None:
    @type_checks.typed
    def wrapped(value: int) -> int:
        return value

    def make(step: int) -> Any:
        @type_checks.typed
        def add(value: int) -> int:
            return wrapped(value) + step

        return add

    other: Any = "3"
    for step in (1, 2):
        assert make(step)(3) == 3 + step
        with pytest.raises(TypeError, match="type hint"):
            make(step)(other)
