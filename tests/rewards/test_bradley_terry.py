"""The pair loss by hand, its columns, its identities."""

import math
from typing import Any

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.rewards.bradley_terry import BradleyTerry, bootstrap_weights, bradley_terry_loss, centre_penalty
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.irl_insights import IRLInsights
from finegrain.rewards.secrets_rm import SecretsRM
from finegrain.rewards.sequence import Sequence
from finegrain.train.contract import as_terms
from tests.rewards.sides import pair

HEAD = Sequence()


def loss(**columns: list[float]) -> float:
    return float(BradleyTerry()(HEAD, pair([[[0.0], [1.5]]], [[[0.5]]], **columns))[0])


def sigma(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_columns() -> None:
    assert loss() == pytest.approx(-math.log(sigma(1.0)))
    assert loss(margin=[0.4]) == pytest.approx(-math.log(sigma(0.6)))
    assert loss(flip=[1.0]) == pytest.approx(-math.log(sigma(-1.0)))
    assert loss(flip=[1.0], margin=[0.4]) == pytest.approx(-math.log(sigma(-1.4)))
    assert loss(label_prob=[0.9]) == pytest.approx(-0.9 * math.log(sigma(1.0)) - 0.1 * math.log(sigma(-1.0)))
    assert loss(tie=[1.0]) == pytest.approx(-0.5 * math.log(sigma(1.0)) - 0.5 * math.log(sigma(-1.0)))


def test_columns_override_the_setting_and_ties_both() -> None:
    smoothed = BradleyTerry(label_smoothing=0.2)
    given = pair([[[1.5]]] * 3, [[[0.5]]] * 3, label_prob=[0.9, 1.0, 0.9], tie=[0.0, 0.5, 0.6])
    ln = lambda a: -(1 - a) * math.log(sigma(1.0)) - a * math.log(sigma(-1.0))
    assert smoothed(HEAD, given).tolist() == pytest.approx([ln(0.1), ln(0.0), ln(0.5)])
    assert smoothed(HEAD, pair([[[1.5]]] * 2, [[[0.5]]] * 2, tie=[0.0, 1.0])).tolist() == pytest.approx([ln(0.2), ln(0.5)])


def test_bootstrap_weights_are_the_hash_they_are_said_to_be() -> None:
    """Row 3 of two members by whole numbers: two rounds of a 32-bit multiplicative hash, made an Exp(1) draw."""

    def drawn(place: int) -> float:
        mixed = ((place + 1) * 0x9E3779B1) % 2**32
        mixed = ((mixed ^ (mixed >> 15)) * 0x85EBCA6B) % 2**32
        mixed = ((mixed ^ (mixed >> 13)) * 0xC2B2AE35) % 2**32
        return -math.log(((mixed ^ (mixed >> 16)) + 0.5) / 2**32)

    found = bootstrap_weights(torch.tensor([3.0, 0.0]), 2)
    assert found.dtype == torch.float32
    assert found.T.tolist() == [pytest.approx([drawn(6), drawn(7)]), pytest.approx([drawn(0), drawn(1)])]


def test_flipping_is_swapping() -> None:
    swapped = BradleyTerry()(HEAD, pair([[[0.5]]], [[[0.0], [1.5]]]))
    assert loss(flip=[1.0]) == float(swapped[0])


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_optimum_under_smoothing(smoothing: float) -> None:
    """z* = g + log((1 - a) / a) (2.197 for a = 0.1, g = 0)."""
    margin = 0.7
    z = torch.tensor([margin + math.log((1 - smoothing) / smoothing)], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(bradley_terry_loss(z, label_smoothing=smoothing, margin=margin).sum(), z)
    assert abs(gradient.item()) < 1e-12


def test_gradient_is_minus_sigma_of_margin_minus_difference() -> None:
    z = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(bradley_terry_loss(z, margin=0.5).sum(), z)
    torch.testing.assert_close(gradient, -torch.sigmoid(0.5 - z.detach()))


def test_smoothing_is_a_probability() -> None:
    for wrong in (0.7, -0.1):
        with pytest.raises(UsageError, match="label_smoothing"):
            BradleyTerry(label_smoothing=wrong)
    assert [BradleyTerry(label_smoothing=bound).label_smoothing for bound in (0.0, 0.5)] == [0.0, 0.5]


def test_members_learn_from_their_own_weighting() -> None:
    rows = torch.arange(20000.0)
    weights = bootstrap_weights(rows, 3)
    assert torch.equal(weights, bootstrap_weights(rows.flip(0), 3).flip(1)), "a row's weights do not depend on its batch"
    assert weights.mean(1).tolist() == pytest.approx([1.0] * 3, abs=0.03), "Exp(1)"
    assert weights.std(1).tolist() == pytest.approx([1.0] * 3, abs=0.05)
    assert abs(float(torch.corrcoef(weights)[0, 1])) < 0.03
    both = pair([[[1.0, 0.0]]], [[[0.0, 2.0]]])
    want = (bootstrap_weights(both.columns["row"], 2)[:, 0] * bradley_terry_loss(torch.tensor([1.0, -2.0]))).mean()
    assert float(BradleyTerry()(Ensemble(members=2), both)[0]) == pytest.approx(float(want), rel=1e-6)


def test_without_a_centre_no_score_is_too_large_to_square() -> None:
    assert centre_penalty(torch.tensor([1e30, 2.0]), 0.0).tolist() == [0.0, 0.0]
    assert centre_penalty(torch.tensor([2.0]), 0.25).tolist() == [1.0]


@pytest.mark.parametrize("loss", [BradleyTerry, SecretsRM, IRLInsights])
def test_centring_is_the_squared_sum(loss: Any) -> None:
    """Scores 3 and -1: 0.25 * (3 - 1)^2 on top; of members, 3 - 1 and 1 - 3, the mean of their own sums under their weights."""
    for head, given, more in (
        (HEAD, pair([[[3.0]]], [[[-1.0]]]), 1.0),
        (Ensemble(members=2), pair([[[3.0, 1.0]]], [[[-1.0, -3.0]]]), float(bootstrap_weights(torch.zeros(1), 2).mean())),
    ):
        plain, centred = (next(iter(as_terms(loss(centre=centre)(head, given), given).values())) for centre in (0.0, 0.25))
        assert (centred.value - plain.value).tolist() == pytest.approx([more])
