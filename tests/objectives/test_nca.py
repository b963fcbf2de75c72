"""nca: a number by hand, and the chosen answer's own pull at the reference."""

import math

import torch

from finegrain.objectives.nca import NCA
from tests.objectives.worked import close, scalar_pair, worked_pair


def softplus(z: float) -> float:
    return math.log1p(math.exp(z))


def test_worked_pair() -> None:
    close(NCA()(worked_pair()), softplus(-0.1) + 0.5 * softplus(0.1) + 0.5 * softplus(-0.05), tolerance=1e-12)


def test_at_the_reference_chosen_and_rejected_pull_alike() -> None:
    pair = scalar_pair((0.0,), (0.0,))
    losses = NCA()(pair)
    close(losses, 2 * math.log(2), tolerance=1e-12)
    chosen, rejected = torch.autograd.grad(losses.sum(), [pair.chosen.logp, pair.rejected.logp])
    close(chosen[0], -0.025, tolerance=1e-12)
    close(rejected[0], 0.025, tolerance=1e-12)
