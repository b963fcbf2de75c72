"""The layer of mean and log standard deviation: linear but for one bias."""

import math

import pytest
import torch

from finegrain.models.reward_head import linear_head
from finegrain.ops.gaussian_layer import GaussianLayer


def layer(outputs: int) -> GaussianLayer:
    return GaussianLayer(outputs, 8, torch.Generator().manual_seed(3))


def test_it_starts_as_the_linear_head_of_its_seed() -> None:
    states = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(2)(states), linear_head(8, 2, seed=3)(states))


@pytest.mark.parametrize("outputs", [2, 6])
def test_the_bias_moves_the_log_standard_deviation_alone(outputs: int) -> None:
    states, moved = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)), layer(outputs)
    moved.start_at(3.0)
    change = moved(states) - layer(outputs)(states)
    want = torch.zeros(outputs)
    want[1] = math.log(3)
    torch.testing.assert_close(change, want.expand_as(change))
    torch.testing.assert_close(moved.offsets, want)
    change.sum().backward()
    assert moved.log_std.grad is not None
    assert moved.log_std.grad.item() == 6
