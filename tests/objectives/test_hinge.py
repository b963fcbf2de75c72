"""hinge: worked number, value at the reference, no gradient beyond the margin."""

import torch

from finegrain.objectives.hinge import Hinge
from tests.objectives.worked import close, scalar_pair, worked_pair


def test_worked_pair() -> None:
    close(Hinge()(worked_pair()), 0.85)


def test_at_the_reference_and_beyond_the_margin() -> None:
    pair = scalar_pair((0.0, 12.0), (0.0, 0.0))
    losses = Hinge()(pair)
    close(losses, 1.0, 0.0)
    (slope,) = torch.autograd.grad(losses.sum(), pair.chosen.logp)
    close(slope[:, 0], -0.1, 0.0)
