"""slic: worked number, its two denominators, and the hinge alone."""

import torch

from finegrain.objectives.slic import SLiC
from tests.laws.drive import step_loss
from tests.objectives.worked import close, random_pair, worked_pair


def test_worked_pair() -> None:
    terms = SLiC(nll=0.5)(worked_pair())
    close(terms["hinge"].value, 0.8)
    close(terms["nll"].value, 10.0)
    close(terms["nll"].count, 5.0)
    assert terms["nll"].coefficient == 0.5
    close(step_loss(SLiC(nll=0.5), [worked_pair()]).unsqueeze(0), 0.8 + 0.5 * 10 / 5)


def test_without_nll_the_step_is_the_mean_hinge() -> None:
    pair = random_pair()
    torch.testing.assert_close(step_loss(SLiC(nll=0.0), [pair]), SLiC()(pair)["hinge"].value.mean())
