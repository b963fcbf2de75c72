"""ipo: worked number, value at the reference, and the finite minimiser."""

import torch

from finegrain.objectives.ipo import IPO, ipo_loss
from tests.objectives.worked import close, real, scalar_pair, worked_pair


def test_worked_pair() -> None:
    close(IPO()(worked_pair()), 12.25)


def test_at_the_reference() -> None:
    close(IPO(beta=0.2)(scalar_pair((0.3, 0.0), (0.3, 0.0))), 6.25, 6.25, tolerance=1e-12)


def test_minimum_is_half_over_beta() -> None:
    best = real(2.5).requires_grad_()
    loss = ipo_loss(best, beta=0.2)
    close(loss, 0.0, tolerance=1e-12)
    close(torch.autograd.grad(loss.sum(), best)[0], 0.0, tolerance=1e-12)
