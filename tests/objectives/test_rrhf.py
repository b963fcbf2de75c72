"""rrhf: worked numbers on both sides of the margin, and its two denominators."""

import torch

from finegrain.objectives.rrhf import RRHF
from tests.laws.drive import step_loss
from tests.objectives.worked import close, random_pair, worked_pair


def test_worked_pair() -> None:
    terms = RRHF(nll=0.5)(worked_pair())
    close(terms["ranking"].value, 0.0)
    close(terms["nll"].value, 10.0)
    close(terms["nll"].count, 5.0)
    assert terms["nll"].coefficient == 0.5
    close(RRHF()(worked_pair().swapped())["ranking"].value, 12 / 4 - 10 / 5)


def test_without_nll_the_step_is_the_mean_hinge() -> None:
    pair = random_pair()
    torch.testing.assert_close(step_loss(RRHF(nll=0.0), [pair]), RRHF()(pair)["ranking"].value.mean())
