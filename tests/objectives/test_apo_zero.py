"""apo-zero: a number by hand; chosen up, rejected down."""

import math

import torch

from finegrain.objectives.apo_zero import APOZero
from tests.objectives.worked import close, scalar_pair, worked_pair


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_worked_pair() -> None:
    close(APOZero()(worked_pair()), 1 - sigmoid(0.1) + sigmoid(-0.05), tolerance=1e-12)


def test_directions() -> None:
    pair = scalar_pair((0.0, 3.0), (0.0, -1.0))
    chosen, rejected = torch.autograd.grad(APOZero()(pair).sum(), [pair.chosen.logp, pair.rejected.logp])
    assert (chosen < 0).all()
    assert (rejected > 0).all()
    close(chosen[:1, 0], -0.025, tolerance=1e-12)
