"""dpop: worked numbers on both sides of the reference, DPO without the penalty."""

import math

import torch

from finegrain.objectives.dpo import DPO
from finegrain.objectives.dpop import DPOP
from tests.objectives.worked import close, random_pair, scalar_pair, worked_pair


def test_worked_pair() -> None:
    close(DPOP()(worked_pair()), math.log1p(math.exp(-0.15)))
    close(DPOP()(worked_pair().swapped()), math.log1p(math.exp(0.1 * (1.5 + 50 * 0.5))))


def test_without_penalty_it_is_dpo() -> None:
    torch.testing.assert_close(DPOP(penalty=0.0)(random_pair()), DPO()(random_pair()))


def test_a_chosen_answer_that_fell_pulls_harder_than_the_rejected_one() -> None:
    pair = scalar_pair((-1.0, 1.0), (-2.0, -2.0))
    up, down = torch.autograd.grad(DPOP(penalty=4.0)(pair).sum(), [pair.chosen.logp, pair.rejected.logp])
    torch.testing.assert_close(-up / down, torch.tensor([[5.0], [1.0]], dtype=torch.float64))
