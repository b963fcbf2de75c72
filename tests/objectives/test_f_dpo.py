"""f-dpo: numbers by hand, limits of alpha, and large log-ratios."""

import math

import pytest
import torch

from finegrain.objectives.dpo import DPO
from finegrain.objectives.f_dpo import FDPO, Alpha, Divergence, ForwardKL, JensenShannon, ReverseKL
from tests.objectives.worked import close, random_pair, real, scalar_pair, worked_pair

ALL: list[Divergence] = [ForwardKL(), JensenShannon(), Alpha(), ReverseKL()]


def dpo_value(margin: float) -> float:
    return math.log1p(math.exp(-0.1 * margin))


def test_worked_pair() -> None:
    pair = worked_pair()
    close(FDPO(divergence=ForwardKL())(pair), dpo_value(math.exp(0.5) - math.exp(-1)), tolerance=1e-12)
    close(FDPO(divergence=JensenShannon())(pair), dpo_value(math.log1p(math.exp(0.5)) - math.log1p(math.exp(-1))), tolerance=1e-12)
    close(FDPO(divergence=Alpha(alpha=0.5))(pair), dpo_value(2 * (math.exp(0.25) - math.exp(-0.5))), tolerance=1e-12)
    assert torch.equal(FDPO(divergence=ReverseKL())(pair), DPO()(pair))


def test_alpha_runs_from_forward_to_reverse_kl() -> None:
    pair = random_pair()
    torch.testing.assert_close(FDPO(divergence=Alpha(alpha=0.0))(pair), FDPO(divergence=ForwardKL())(pair), rtol=0, atol=1e-12)
    torch.testing.assert_close(FDPO(divergence=Alpha(alpha=1 + 1e-9))(pair), DPO()(pair), rtol=0, atol=1e-8)
    assert torch.equal(FDPO(divergence=Alpha(alpha=1.0))(pair), DPO()(pair))


@pytest.mark.parametrize("divergence", ALL, ids=lambda choice: type(choice).__name__)
def test_maps_are_zero_at_the_reference_and_do_not_fall(divergence: Divergence) -> None:
    ratio = torch.linspace(-4, 4, 81, dtype=torch.float64)
    mapped = divergence(ratio)
    close(divergence(real(0.0)), 0.0, tolerance=1e-15)
    assert (mapped.diff() > 0).all()


@pytest.mark.parametrize("divergence", ALL, ids=lambda choice: type(choice).__name__)
def test_large_log_ratios_stay_finite(divergence: Divergence) -> None:
    pair = scalar_pair((300.0, -300.0), (-300.0, 300.0))
    losses = FDPO(divergence=divergence)(pair)
    (slope,) = torch.autograd.grad(losses.sum(), pair.chosen.logp)
    assert losses.isfinite().all()
    assert slope.isfinite().all()
