"""expo: everything its sheet says must hold."""

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.weights.expo import Expo
from finegrain.weights.soup import weighted_sum
from finegrain.weights.task_arithmetic import TaskArithmetic
from tests.weights.tensors import close, numbers, related, same_bits

DTYPES = [torch.bfloat16, torch.float32, torch.float64]


def test_worked_number() -> None:
    close(Expo(alpha=0.5)([numbers(1.2, 1.5)], numbers(1, 2), torch.float64), [1.3, 1.25])


@pytest.mark.parametrize("dtype", DTYPES)
def test_alpha_0_is_the_aligned_model_bit_for_bit(dtype: torch.dtype) -> None:
    for start, aligned in related(2, dtype):
        assert same_bits(Expo(alpha=0.0)([aligned], start, dtype), aligned)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [-1.0, 0.3, 25.0])
def test_a_model_against_itself_is_the_model_bit_for_bit(dtype: torch.dtype, alpha: float) -> None:
    for start, _ in related(2, dtype):
        assert same_bits(Expo(alpha=alpha)([start.clone()], start, dtype), start)


def test_alpha_minus_1_is_the_start() -> None:
    for start, aligned in related(2, torch.float64):
        close(Expo(alpha=-1.0)([aligned], start, torch.float64), start)
    for start, aligned in related(2, torch.bfloat16):
        torch.testing.assert_close(Expo(alpha=-1.0)([aligned], start, torch.bfloat16), start, rtol=0, atol=0)


def test_linear_in_alpha() -> None:
    for start, aligned in related(2, torch.float64):
        low, middle, high = (Expo(alpha=alpha)([aligned], start, torch.float64) for alpha in (0.2, 0.8, 1.4))
        close(low + high, 2 * middle)


def test_inverse_of_interpolation() -> None:
    for start, aligned in related(2, torch.float64):
        beyond = Expo(alpha=0.7)([aligned], start, torch.float64)
        close((beyond + 0.7 * start) / 1.7, aligned)
        close(weighted_sum([beyond, start], (1 / 1.7, 0.7 / 1.7)), aligned)


def test_the_best_alpha_of_a_quadratic_is_its_line_search() -> None:
    """Of omega(theta) = -|theta - target|^2 / 2 along the change d: alpha = (target - theta_1) d / |d|^2."""
    generator = torch.Generator().manual_seed(3)
    start, aligned, target = (torch.randn(20, generator=generator, dtype=torch.float64) for _ in range(3))
    change = aligned - start
    closed = float((target - aligned) @ change / (change @ change))
    value = lambda alpha: -float((Expo(alpha=alpha)([aligned], start, torch.float64) - target).square().sum())
    assert value(closed) > max(value(closed - 1e-3), value(closed + 1e-3))
    grid = [closed + step / 100 for step in range(-50, 51)]
    assert max(grid, key=value) == pytest.approx(closed, abs=1e-9)


def test_a_small_change_of_a_bfloat16_model_is_not_lost() -> None:
    """Three tenths of the spacing of bfloat16 numbers: nothing in bfloat16 arithmetic, and exact to float32 here."""
    spacing = torch.finfo(torch.bfloat16).eps
    start = torch.ones(1, dtype=torch.bfloat16)
    aligned = start + spacing
    moved = Expo(alpha=0.3)([aligned], start, torch.float32) - aligned.float()
    close(moved, [0.3 * spacing], torch.finfo(torch.float32).eps)
    assert same_bits(aligned + 0.3 * (aligned - start), aligned)


def test_task_arithmetic_with_one_model_is_the_general_case() -> None:
    for start, aligned in related(2, torch.float64):
        general = TaskArithmetic(scale=1.5)([aligned], start, torch.float64)
        close(Expo(alpha=0.5)([aligned], start, torch.float64), general)


def test_coefficients_sum_to_1() -> None:
    assert Expo(alpha=0.5).coefficients(1) == (1.5, -0.5)


def test_refused() -> None:
    with pytest.raises(UsageError, match="needs --base"):
        Expo().check(1, base=False)
    with pytest.raises(UsageError, match="one model from its --base, got 2"):
        Expo().check(2, base=True)
