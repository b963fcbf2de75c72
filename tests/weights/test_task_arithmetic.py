"""task-arithmetic: worked number, deltas add up, a base with itself, and its limits."""

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.weights.soup import Soup
from finegrain.weights.task_arithmetic import TaskArithmetic
from tests.weights.tensors import close, numbers, related, same_bits


def test_worked_number() -> None:
    method = TaskArithmetic(weights=(1.0, -0.5), scale=2.0)
    close(method([numbers(1.5, 2), numbers(1, 4)], numbers(1, 2), torch.float64), [2.0, 0.0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_models_that_did_not_move_give_the_base_bit_for_bit(dtype: torch.dtype) -> None:
    for base, _ in related(2, dtype):
        assert same_bits(TaskArithmetic(scale=0.7)([base.clone(), base.clone()], base, dtype), base)


def test_scale_0_is_the_base_bit_for_bit() -> None:
    for base, model in related(2):
        assert same_bits(TaskArithmetic(scale=0.0)([model], base, torch.float32), base)


def test_deltas_add_up() -> None:
    """One task after the other is both at once."""
    for base, one, two in related(3, torch.float64):
        both = TaskArithmetic(weights=(0.4, 0.8))([one, two], base, torch.float64)
        first = TaskArithmetic(weights=(0.4,))([one], base, torch.float64)
        close(both, first + 0.8 * (two - base))


def test_weights_that_sum_to_1_are_a_soup() -> None:
    for base, one, two in related(3, torch.float64):
        close(TaskArithmetic(weights=(0.3, 0.7))([one, two], base, torch.float64), Soup(weights=(0.3, 0.7))([one, two], None, torch.float64))


def test_coefficients() -> None:
    assert TaskArithmetic(weights=(1.0, 0.5), scale=2.0).coefficients(2) == (2.0, 1.0, -2.0)
    assert TaskArithmetic().coefficients(2) == (1.0, 1.0, -1.0)


def test_refused() -> None:
    with pytest.raises(UsageError, match="needs --base"):
        TaskArithmetic().check(2, base=False)
    with pytest.raises(UsageError, match="1 weights for 2 models"):
        TaskArithmetic(weights=(1.0,)).check(2, base=True)
