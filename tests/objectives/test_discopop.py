"""discopop: a number by hand, its two regimes, and margins that overflow a naive form."""

import math

import torch

from finegrain.objectives.discopop import DiscoPOP, discopop_loss
from tests.objectives.worked import close, real, worked_pair


def test_worked_pair() -> None:
    gate = 1 / (1 + math.exp(-0.15 / 0.05))
    want = (1 - gate) * math.log1p(math.exp(-0.15)) + gate * math.exp(-0.15)
    close(DiscoPOP()(worked_pair()), want, tolerance=1e-12)


def test_exponential_for_right_pairs_and_logistic_for_wrong_ones() -> None:
    close(discopop_loss(real(3.0, -3.0), beta=1.0, tau=0.05), math.exp(-3), math.log1p(math.exp(3)), tolerance=1e-12)


def test_a_very_wrong_pair_has_a_finite_loss_and_gradient() -> None:
    margin = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = discopop_loss(margin, beta=0.1, tau=0.05)
    (slope,) = torch.autograd.grad(loss.sum(), margin)
    assert loss.isfinite().all()
    torch.testing.assert_close(slope, torch.tensor([-0.1, 0.0]))
