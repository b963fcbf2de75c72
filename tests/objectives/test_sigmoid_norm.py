"""sigmoid-norm: a number by hand, and DPO on answers of one token."""

import math

import torch

from finegrain.objectives.dpo import DPO
from finegrain.objectives.sigmoid_norm import SigmoidNorm
from tests.objectives.worked import close, scalar_pair, worked_pair


def test_worked_pair() -> None:
    close(SigmoidNorm(beta=2.0)(worked_pair()), math.log1p(math.exp(-2 * (1 / 5 + 0.5 / 4))), tolerance=1e-12)


def test_one_token_answers_give_dpo() -> None:
    pair = scalar_pair((0.4, -2.0), (1.0, 0.1))
    torch.testing.assert_close(SigmoidNorm(beta=0.1)(pair), DPO(beta=0.1)(pair), rtol=0, atol=1e-12)
