"""Advantages against a loop, by hand, and at the limits of lambda; the penalty that comes before."""

import pytest
import torch

from finegrain.online.gae import CarryAcross, RunThrough, gae
from finegrain.online.kl_penalty import subtract_kl_penalty


def draw(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 6, generator=generator) < 0.7
    mask[3] = False
    return rewards, values, mask


def test_by_hand() -> None:
    """delta = (1 + .5 * 2 - 4, 3 - 2) = (-2, 1); A_0 = -2 + .5 * .5 * 1."""
    found = gae(torch.tensor([[1.0, 3.0]]), torch.tensor([[4.0, 2.0]]), torch.tensor([[True, True]]), gamma=0.5, lam=0.5)
    assert found.advantages.tolist() == [[-1.75, 1.0]]
    assert found.returns.tolist() == [[2.25, 3.0]]


def test_against_a_loop_over_the_answers_own_tokens() -> None:
    rewards, values, mask = draw()
    found = gae(rewards, values, mask, gamma=0.9, lam=0.7)
    for row in range(len(mask)):
        own = mask[row].nonzero()[:, 0].tolist()
        for place, t in enumerate(own):
            rest = own[place:]
            deltas = [
                float(rewards[row, at]) + 0.9 * (float(values[row, rest[k + 1]]) if k + 1 < len(rest) else 0.0) - float(values[row, at])
                for k, at in enumerate(rest)
            ]
            assert float(found.advantages[row, t]) == pytest.approx(sum((0.9 * 0.7) ** k * delta for k, delta in enumerate(deltas)))
    assert not found.advantages[~mask].any()
    assert not found.returns[~mask].any()


def test_lambda_1_without_values_sums_what_comes() -> None:
    rewards, values, mask = draw()
    found = gae(rewards, torch.zeros_like(values), mask, gamma=1.0, lam=1.0)
    kept = torch.where(mask, rewards, 0.0)
    torch.testing.assert_close(found.returns, torch.where(mask, kept.flip(1).cumsum(1).flip(1), 0.0))


def test_lambda_0_looks_one_token_ahead() -> None:
    rewards, values, _ = draw()
    found = gae(rewards, values, torch.ones(4, 6, dtype=torch.bool), gamma=1.0, lam=0.0)
    after = torch.cat([values[:, 1:], torch.zeros(4, 1)], 1)
    torch.testing.assert_close(found.returns, rewards + after)


def test_garbage_under_the_mask() -> None:
    rewards, values, mask = draw()
    clean = gae(rewards, values, mask, gamma=0.9, lam=0.7)
    nan = torch.nan
    spoiled = gae(torch.where(mask, rewards, nan), torch.where(mask, values, nan), mask, gamma=0.9, lam=0.7)
    assert torch.equal(clean.advantages, spoiled.advantages)
    assert torch.equal(clean.returns, spoiled.returns)
    assert gae(rewards[:, :0], values[:, :0], mask[:, :0], gamma=1.0, lam=1.0).advantages.shape == (4, 0)


def test_rewards_are_clipped_before_the_penalty() -> None:
    mask = torch.tensor([[True, True, False]])
    logp, ref = torch.tensor([[-1.0, -2.0, torch.nan]]), torch.tensor([[-3.0, -1.0, 0.0]])
    found = subtract_kl_penalty(torch.tensor([[50.0, -1.0, torch.nan]]), logp, ref, mask, coefficient=0.5, limit=10.0)
    assert found.tolist() == [[9.0, -0.5, 0.0]]


def test_rules_for_tokens_of_others() -> None:
    """gamma lam = 1/4 per token: skipped, the last token is one step from the first; run through, two steps with a value of 0 between."""
    rewards, values = torch.tensor([[1.0, torch.nan, 3.0]]), torch.tensor([[4.0, torch.nan, 2.0]])
    mask = torch.tensor([[True, False, True]])
    carried, through = (rule(rewards, values, mask, 0.5, 0.5) for rule in (CarryAcross(), RunThrough()))
    assert carried.advantages.tolist() == [[1 + 0.5 * 2 - 4 + 0.25 * 1, 0, 1]]
    assert through.advantages.tolist() == [[1 - 4 + 0.25 * (0.5 * 2 + 0.25 * 1), 0, 1]]
    assert through.returns.tolist() == [[1 + 0.25 * 1.25, 0, 3]]
    whole = torch.ones_like(mask)
    rewards, values = rewards.nan_to_num(0.5), values.nan_to_num(0.5)
    assert torch.equal(CarryAcross()(rewards, values, whole, 0.5, 0.5).advantages, RunThrough()(rewards, values, whole, 0.5, 0.5).advantages)
