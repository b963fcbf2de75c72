"""Means and standard deviations, and how they propagate to the answer."""

import math

import pytest
import torch

from finegrain.ops.readout import Last, Mean, Minimum, Sum
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.heads import sequence_score
from tests.rewards.sides import side

SIDE = side([[[1.0, math.log(3.0)], [2.0, math.log(4.0)]], [[0.5, 9.0]]])


@pytest.mark.parametrize(
    ("readout", "mean", "std"),
    [(Sum(), 3.0, 5.0), (Mean(), 1.5, 2.5), (Last(), 2.0, 4.0), (Minimum(), 1.0, 3.0)],
)
def test_errors_of_tokens_add_up_as_independent_ones(readout: Sum | Mean | Last | Minimum, mean: float, std: float) -> None:
    score = sequence_score(Gaussian(readout=readout), SIDE)
    assert score.std is not None
    assert score.mean[0].item() == pytest.approx(mean)
    assert score.std[0].item() == pytest.approx(std)
    assert score.std[1].item() == pytest.approx(math.e**2), "log sd is clamped"


def test_the_std_carries_a_gradient() -> None:
    live = SIDE.outputs
    assert live is not None
    outputs = live.clone().requires_grad_()
    score = sequence_score(Gaussian(readout=Sum()), type(SIDE)(logp=SIDE.logp, mask=SIDE.mask, outputs=outputs))
    assert score.std is not None
    (gradient,) = torch.autograd.grad(score.std[0], outputs)
    assert gradient[0, :, 1].tolist() == pytest.approx([9 / 5, 16 / 5])


def test_stock_row_is_the_mean() -> None:
    weight = torch.randn(2, 4)
    assert torch.equal(Gaussian().stock(weight), weight[:1])
