"""The posterior of a linear reward: closed form, limits, evidence, and what pairs can and cannot say."""

import math

import pytest
import torch
from torch import Tensor

from finegrain.errors import DataError, UsageError
from finegrain.ops.readout import Last, Mean, Minimum, Readout, Sum
from finegrain.rewards.laplace import (
    PRIOR_VARIANCES,
    EvidenceVariance,
    FixedVariance,
    Posterior,
    answer_features,
    determined_directions,
    fit_posterior,
    log_evidence,
    pair_curvature,
)

H = 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def posterior(pairs: int = 40, variance: float = 0.7) -> tuple[Posterior, Tensor]:
    weight, difference = drawn(H), drawn(pairs, H, seed=1)
    curvature = pair_curvature(difference, difference @ weight)
    return fit_posterior(weight, curvature, FixedVariance(variance=variance)), curvature


def test_variance_is_the_dense_formula() -> None:
    """And the curvature is that of the loss itself."""
    found, curvature = posterior()
    inverse = torch.linalg.inv(curvature + torch.eye(H, dtype=torch.float64) / 0.7)
    left, right = drawn(6, H, seed=2), drawn(6, H, seed=3)
    torch.testing.assert_close(found.variance(left), torch.einsum("nh,hk,nk->n", left, inverse, left))
    torch.testing.assert_close(found.covariance(left, right), torch.einsum("nh,hk,nk->n", left, inverse, right))
    joint = found.variance(left) + found.variance(right) - 2 * found.covariance(left, right)
    torch.testing.assert_close(found.variance(left - right), joint)
    difference = drawn(40, H, seed=1)
    loss = lambda weight: -torch.nn.functional.logsigmoid(difference @ weight).sum()
    hessian = torch.autograd.functional.hessian(loss, found.weight)
    torch.testing.assert_close(curvature, hessian)


def test_worked_in_one_dimension() -> None:
    """One pair, g = 2, d = 0: H = 1/4 * 4 = 1; s2 = 1: variance of the feature 3 is 9 / 2, and scales with its square."""
    curvature = pair_curvature(torch.tensor([[2.0]]), torch.tensor([0.0]))
    assert curvature.item() == 1.0
    found = fit_posterior(torch.tensor([0.5]), curvature, FixedVariance(variance=1.0))
    assert found.variance(torch.tensor([3.0], dtype=torch.float64)).item() == pytest.approx(4.5)
    assert found.variance(torch.tensor([6.0], dtype=torch.float64)).item() == pytest.approx(18.0)
    chance = found.win_probability(torch.tensor([3.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64))
    assert chance.item() == pytest.approx(1 / (1 + math.exp(-1.0 / math.sqrt(1 + math.pi / 8 * 2.0))))


def test_limits() -> None:
    features = drawn(6, H, seed=2)
    nothing = fit_posterior(drawn(H), torch.zeros(H, H, dtype=torch.float64), FixedVariance(variance=0.7))
    torch.testing.assert_close(nothing.variance(features), 0.7 * features.square().sum(-1))
    assert posterior(variance=1e-12)[0].variance(features).max() < 1e-10
    before = posterior(pairs=10)[0].variance(features)
    assert (posterior(pairs=40)[0].variance(features) <= before).all(), "the first ten pairs and thirty more"
    assert (before >= 0).all()


def test_what_is_common_to_both_answers_keeps_its_prior_variance() -> None:
    """A bias: the last feature is 1 in every answer, so no pair speaks of it; the difference of two answers is free of it."""
    difference = drawn(30, H, seed=1)
    difference[:, -1] = 0
    found = fit_posterior(drawn(H), pair_curvature(difference, difference @ drawn(H)), FixedVariance(variance=0.7))
    bias = torch.eye(H, dtype=torch.float64)[-1]
    assert found.variance(bias).item() == pytest.approx(0.7)
    answer, other = drawn(H, seed=4), drawn(H, seed=5)
    assert found.variance(answer + bias - (other + bias)).item() == pytest.approx(found.variance(answer - other).item())


def test_determined_directions_by_hand() -> None:
    """Curvatures 0, 1/2 and 2 under a prior variance of 2: 0 + 1/2 + 4/5."""
    assert determined_directions(torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64), 2.0) == pytest.approx(1.3)


def test_a_pair_s_weight_counts_it() -> None:
    difference = drawn(3, H)
    twice = pair_curvature(torch.cat([difference, difference]), torch.zeros(6))
    torch.testing.assert_close(pair_curvature(difference, torch.zeros(3), torch.full((3,), 2.0)), twice)


def test_the_evidence_is_largest_at_the_variance_found() -> None:
    found, curvature = posterior()
    values, norm = found.curvature, float(found.weight.square().sum())
    best = EvidenceVariance()(values, norm)
    there = log_evidence(-3.0, values, norm, best)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert log_evidence(-3.0, values, norm, best * factor) < there
    inverse_scale = torch.eye(H, dtype=torch.float64) / best
    dense = -3.0 - norm / (2 * best) - 0.5 * torch.logdet(curvature + inverse_scale) + 0.5 * torch.logdet(inverse_scale)
    assert there == pytest.approx(dense.item())


@pytest.mark.parametrize(("curvature", "squared_norm"), [(3.0, 0.7), (1e6, 1e-13), (1e-9, 1e3)])
def test_the_evidence_of_one_direction_by_hand(curvature: float, squared_norm: float) -> None:
    """n / s = l / (l + 1 / s), so l s^2 - n l s - n = 0; the second slope is below 1 at the least variance, and positive."""
    product = squared_norm * curvature
    root = (product + math.sqrt(product**2 + 4 * product)) / (2 * curvature)
    assert EvidenceVariance()(torch.tensor([curvature], dtype=torch.float64), squared_norm) == pytest.approx(root, rel=1e-9)


@pytest.mark.parametrize("edge", PRIOR_VARIANCES)
def test_a_maximum_exactly_at_an_edge_is_refused(edge: float) -> None:
    """All directions are determined, so the slope is n / s - 1: exactly 0 at the edge."""
    with pytest.raises(DataError, match="check the scale"):
        EvidenceVariance()(torch.tensor([1e30], dtype=torch.float64), 1 / math.exp(-math.log(edge)))


def test_the_evidence_needs_something_to_say() -> None:
    with pytest.raises(DataError, match="no curvature"):
        EvidenceVariance()(torch.zeros(3), 1.0)
    with pytest.raises(DataError, match="weights are 0"):
        EvidenceVariance()(torch.ones(3), 0.0)
    with pytest.raises(DataError, match="check the scale"):
        EvidenceVariance()(torch.full((3,), 1e-30, dtype=torch.float64), 1.0)
    with pytest.raises(DataError, match="not finite"):
        fit_posterior(torch.ones(1), torch.full((1, 1), float("nan")), FixedVariance())
    with pytest.raises(UsageError, match="above 0"):
        FixedVariance(variance=0.0)


@pytest.mark.parametrize("readout", [Last(), Sum(), Mean(), Minimum()], ids=lambda readout: type(readout).__name__)
def test_features_have_the_scores_precision(readout: Readout) -> None:
    states, mask = drawn(2, 3, H), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    scores = states[..., 0]
    found = answer_features(readout, scores, states.float(), mask)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, answer_features(readout, scores, states, mask), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("readout", [Last(), Sum(), Mean(), Minimum()], ids=lambda readout: type(readout).__name__)
def test_features_are_the_slope_of_the_score(readout: Readout) -> None:
    """By autograd through the weights, on ragged answers with junk under the mask."""
    states, weight = drawn(3, 4, H), drawn(H, seed=1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 0]]).bool()
    states[~mask] = float("nan")
    found = answer_features(readout, states @ weight, states, mask)
    clean = torch.where(mask[..., None], states, 0.0)
    live = weight.clone().requires_grad_()
    slopes = [torch.autograd.grad(readout(clean @ live, mask)[row], live)[0] for row in range(3)]
    torch.testing.assert_close(found, torch.stack(slopes))
