"""bco: a number by hand, and two independent classifiers."""

import math

import torch

from finegrain.objectives.bco import BCO
from tests.objectives.worked import close, scalar_pair, worked_pair


def test_worked_pair() -> None:
    close(BCO()(worked_pair()), math.log1p(math.exp(-0.1)) + math.log1p(math.exp(-0.05)), tolerance=1e-12)


def test_the_chosen_gradient_does_not_depend_on_the_rejected_answer() -> None:
    slopes = []
    for rejected in (-5.0, 5.0):
        pair = scalar_pair((0.4,), (rejected,))
        slopes.append(torch.autograd.grad(BCO()(pair).sum(), pair.chosen.logp)[0])
    assert torch.equal(*slopes)
