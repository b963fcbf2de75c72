"""Fits of Gaussian heads to a stage-1 reward, worked, and what the squared error of a sample does to the spread."""

import math

import pytest
import torch

from finegrain.errors import DataError, UsageError
from finegrain.rewards.bradley_terry import bootstrap_weights
from finegrain.rewards.brme import BRME, MeanSquaredSample, PreferenceGaussian
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.gaussian_ensemble import GaussianEnsemble
from finegrain.rewards.token import Token
from tests.rewards.sides import pair
from tests.rewards.test_gaussian_ensemble import raw

ONE = GaussianEnsemble(members=1)
GOOD, BAD = [[[1.0, raw(0.5)]]], [[[-1.0, raw(4.0)]]]  # standard deviations whose logarithms do not cancel


def test_negative_log_likelihood() -> None:
    """N(1, 0.5) of 2 and N(-1, 4) of 0: z = 2 and 1/4, plus log sd and log sqrt(2 pi), averaged."""
    row = pair(GOOD, BAD, chosen_target=[2.0], rejected_target=[0.0])
    want = ((2.0 + math.log(0.5)) + (0.03125 + math.log(4.0))) / 2 + 0.5 * math.log(2 * math.pi)
    assert BRME()(ONE, row).item() == pytest.approx(want)


def test_sampled_squared_error_is_its_expectation() -> None:
    """E (mu + s eps - t)^2 = (mu - t)^2 + s^2, seen in a million draws; its gradient pushes every spread to 0."""
    row = pair(GOOD, BAD, chosen_target=[2.0], rejected_target=[0.0])
    loss = BRME(fit=MeanSquaredSample())(ONE, row).item()
    eps = torch.randn(2, 1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = ((1.0 + 0.5 * eps[0] - 2.0).square().mean() + (-1.0 + 4.0 * eps[1] - 0.0).square().mean()) / 2
    assert loss == pytest.approx((1.25 + 17.0) / 2)
    assert drawn.item() == pytest.approx(loss, abs=0.06)  # four standard errors: sd of the mean of squares is below 0.015
    assert row.chosen.outputs is not None
    live = row.chosen.outputs.requires_grad_()
    (slope,) = torch.autograd.grad(BRME(fit=MeanSquaredSample())(ONE, row).sum(), live)
    assert slope[0, 0, 1] > 0


def test_preference_gaussian() -> None:
    """-log Phi(2 / sqrt(0.25 + 16)), and no target is read."""
    loss = BRME(fit=PreferenceGaussian())(ONE, pair(GOOD, BAD)).item()
    assert loss == pytest.approx(-math.log(0.5 * math.erfc(-2 / math.sqrt(16.25) / math.sqrt(2))))
    assert not BRME(fit=PreferenceGaussian()).reads_targets
    assert BRME().reads_targets


def test_members_have_their_own_weights() -> None:
    two = GaussianEnsemble(members=2)
    row = pair([[[1.0, 1.0, raw(0.5), raw(0.5)]]], [[[-1.0, -1.0, raw(4.0), raw(4.0)]]], row=[7.0], chosen_target=[2.0], rejected_target=[0.0])
    alone = BRME()(ONE, pair(GOOD, BAD, chosen_target=[2.0], rejected_target=[0.0]))
    weights = bootstrap_weights(torch.tensor([7.0]), 2).double()
    assert BRME()(two, row).item() == pytest.approx((alone * weights.mean()).item(), rel=1e-6)


def test_an_answer_without_a_token_has_a_spread_of_one() -> None:
    """The sides of the second row: none, with mean 0 for the target 2, and N(-1, 4) of 0."""
    row = pair([*GOOD, []], BAD * 2, chosen_target=[2.0, 2.0], rejected_target=[0.0, 0.0])
    want = (2.0 + (0.03125 + math.log(4.0))) / 2 + 0.5 * math.log(2 * math.pi)
    assert BRME()(ONE, row)[1].item() == pytest.approx(want)
    turned = pair(GOOD * 2, [*BAD, []], chosen_target=[2.0, 2.0], rejected_target=[0.0, 3.0])
    want = ((2.0 + math.log(0.5)) + 4.5) / 2 + 0.5 * math.log(2 * math.pi)
    assert BRME()(ONE, turned)[1].item() == pytest.approx(want)


def test_no_target_and_the_wrong_head() -> None:
    with pytest.raises(DataError, match="the rows lack chosen_target;"):
        BRME()(ONE, pair(GOOD, BAD))
    with pytest.raises(DataError, match="the rows lack rejected_target;"):
        BRME()(ONE, pair(GOOD, BAD, chosen_target=[2.0]))
    with pytest.raises(UsageError, match="GaussianEnsemble"):
        RewardFit(Token(), BRME())
