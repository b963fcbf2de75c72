"""irl-insights: slopes, scale, the link to Bradley-Terry."""

import pytest
import torch
from torch import Tensor

from finegrain.rewards.bradley_terry import BradleyTerry, bradley_terry_loss
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.irl_insights import Hinge, IRLInsights, Logistic, MaxMargin, RankingLoss, Squared
from finegrain.rewards.sequence import Sequence
from tests.rewards.sides import pair

LOSSES = [MaxMargin(), Hinge(), Logistic(), Squared()]


def slopes(loss: RankingLoss, margins: list[float]) -> list[float]:
    d = torch.tensor(margins, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(d, torch.zeros_like(d)).sum(), d)
    return [float(value) for value in gradient]


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_max_margin_worked() -> None:
    assert MaxMargin()(real(3.0, 1.0, 0.0), real(1.0, 2.0, 0.0)).tolist() == [-2.0, 2.0, 0.0]
    assert slopes(MaxMargin(), [2.0, -1.0]) == [-1.0, -2.0]
    assert slopes(MaxMargin(), [0.0]) == [-1.5], "a tie is pushed apart, in the right direction"


def test_max_margin_scales_and_so_has_no_minimum() -> None:
    d = torch.randn(20, dtype=torch.float64)
    for scale in (0.5, 7.0):
        torch.testing.assert_close(MaxMargin()(scale * d, torch.zeros_like(d)), scale * MaxMargin()(d, torch.zeros_like(d)))
        assert not torch.allclose(Hinge()(scale * d, torch.zeros_like(d)), scale * Hinge()(d, torch.zeros_like(d)))


def test_hinge_is_zero_from_one_on() -> None:
    assert Hinge()(real(1.0, 2.0, 0.5, -1.0), real(0.0, 0.0, 0.0, 0.0)).tolist() == [0.0, 0.0, 0.5, 2.0]


def test_logistic_is_bradley_terry() -> None:
    d = torch.randn(20, dtype=torch.float64) * 10
    torch.testing.assert_close(Logistic()(d, torch.zeros_like(d)), bradley_terry_loss(d), rtol=0, atol=1e-12)


def test_squared_pulls_margins_to_zero() -> None:
    assert slopes(Squared(), [2.0, -1.0]) == [4.0, -2.0]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_function_of_the_prompt_plays_no_part(loss: RankingLoss) -> None:
    expert, other, prompt = torch.randn(3, 20, dtype=torch.float64)
    torch.testing.assert_close(loss(expert + prompt, other + prompt), loss(expert, other), rtol=0, atol=1e-12)


def test_as_a_loss_of_pairs() -> None:
    chosen, rejected = [[[9.0], [3.0]], [[1.0]]], [[[1.0]], [[5.0], [2.0]]]
    assert IRLInsights()(Sequence(), pair(chosen, rejected)).tolist() == [-2.0, 2.0]
    assert IRLInsights(ranking=Hinge())(Sequence(), pair(chosen, rejected)).tolist() == [0.0, 2.0]


def test_members_of_an_ensemble_are_judged_one_by_one() -> None:
    """With the logistic loss this is Bradley-Terry, bootstrap weights included."""
    chosen, rejected = ([[[float(value) for value in torch.randn(3)]] for _ in range(4)] for _ in range(2))
    judged = pair(chosen, rejected)
    head = Ensemble(members=3)
    torch.testing.assert_close(IRLInsights(ranking=Logistic())(head, judged), BradleyTerry()(head, judged), rtol=0, atol=1e-12)
    assert not torch.allclose(IRLInsights(ranking=Squared())(head, judged), BradleyTerry()(head, judged))
