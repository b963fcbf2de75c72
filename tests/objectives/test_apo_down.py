"""apo-down: a number by hand; the chosen answer goes down where the pair is already apart."""

import math

import torch

from finegrain.objectives.apo_down import APODown
from tests.objectives.worked import close, scalar_pair, worked_pair


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_worked_pair() -> None:
    close(APODown()(worked_pair()), sigmoid(0.1) + 1 - sigmoid(0.15), tolerance=1e-12)


def test_directions() -> None:
    pair = scalar_pair((0.0, 0.0), (0.0, -30.0))
    chosen, rejected = torch.autograd.grad(APODown()(pair).sum(), [pair.chosen.logp, pair.rejected.logp])
    close(chosen[:1, 0], 0.0, tolerance=1e-12)
    assert chosen[1, 0] > 0
    assert (rejected > 0).all()
