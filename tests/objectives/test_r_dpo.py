"""r-dpo: worked number, DPO without the length or at equal lengths."""

import math

import torch

from finegrain.objectives.dpo import DPO
from finegrain.objectives.r_dpo import RDPO
from tests.objectives.worked import close, random_pair, scalar_pair, worked_pair


def test_worked_pair() -> None:
    close(RDPO(beta=0.1, alpha=0.2)(worked_pair()), math.log1p(math.exp(-(0.15 + 0.2))))


def test_without_length_it_is_dpo() -> None:
    torch.testing.assert_close(RDPO(alpha=0.0)(random_pair()), DPO()(random_pair()))
    even = scalar_pair((0.3, -1.0), (0.1, 2.0))
    torch.testing.assert_close(RDPO(alpha=3.0)(even), DPO()(even))


def test_a_longer_chosen_answer_is_learned_from_less() -> None:
    for pair, sign in ((worked_pair(), 1), (worked_pair().swapped(), -1)):
        live, slopes = pair.chosen.logp.requires_grad_(), []
        for objective in (RDPO(), DPO()):
            (slope,) = torch.autograd.grad(objective(pair).sum(), live)
            slopes.append(float(slope.abs()[pair.chosen.mask].mean()))
        assert sign * (slopes[1] - slopes[0]) > 0
