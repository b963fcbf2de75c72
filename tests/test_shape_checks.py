"""The tests run under run-time checks: of types everywhere, of shapes where annotations name them."""

from typing import Any

import numpy as np
import pytest
import torch

from finegrain.configure import to_kebab
from finegrain.data.records import Response
from finegrain.ops.masked import masked_sum
from finegrain.train.batches import Step


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
