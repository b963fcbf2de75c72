"""conservative: worked number, the limit of no smoothing, and its finite minimiser."""

import math

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.objectives.conservative import Conservative, conservative_loss
from finegrain.objectives.dpo import DPO, dpo_loss
from tests.objectives.worked import close, random_pair, real, worked_pair


def test_worked_pair() -> None:
    close(Conservative(label_smoothing=0.1)(worked_pair()), 0.635957048)


def test_no_smoothing_is_dpo() -> None:
    pair = random_pair()
    assert torch.equal(Conservative(label_smoothing=0.0)(pair), DPO()(pair))


def test_is_dpo_plus_a_linear_term() -> None:
    margin = real(-5, 0, 0.4, 30)
    got = conservative_loss(margin, beta=0.1, label_smoothing=0.2)
    torch.testing.assert_close(got, dpo_loss(margin, beta=0.1) + 0.2 * 0.1 * margin, rtol=0, atol=1e-12)


def test_minimum_is_where_the_policy_believes_the_label_rate() -> None:
    best = real(math.log(0.8 / 0.2) / 0.1).requires_grad_()
    (slope,) = torch.autograd.grad(conservative_loss(best, beta=0.1, label_smoothing=0.2).sum(), best)
    close(slope, 0.0, tolerance=1e-12)


@pytest.mark.parametrize("rate", [-0.1, 0.5, 1.0])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="label_smoothing"):
        Conservative(label_smoothing=rate)
