"""Several rewards: sums with answers that some of them did not judge, normalised before or after."""

from dataclasses import replace

import pytest
import torch

from finegrain.online.combine import NormaliseThenSum, SumRewards, sum_rewards
from finegrain.online.groups import Centred, GroupMean, GroupNorm
from finegrain.online.rollout import Rollout
from finegrain.ops.masked import masked_sum
from tests.online.rollouts import make_rollout, update_of


def two_rewards(*, dense: bool = False) -> Rollout:
    first, second = make_rollout(0, dense=dense), make_rollout(1, dense=dense, unjudged=False)
    return replace(
        first,
        sequence=torch.cat([first.sequence, second.sequence], 1),
        tokens=torch.cat([first.tokens, second.tokens], 2),
        weights=(0.7, -0.3),
    )


def test_a_reward_that_did_not_judge_counts_as_0() -> None:
    rollout = two_rewards(dense=True)
    found = sum_rewards(rollout)
    torch.testing.assert_close(found.sequence[0], rollout.sequence[0] @ torch.tensor([0.7, -0.3], dtype=torch.float64))
    torch.testing.assert_close(found.sequence[1], -0.3 * rollout.sequence[1, 1])
    torch.testing.assert_close(found.tokens[1], -0.3 * torch.where(rollout.mask[1], rollout.tokens[1, :, 1], 0.0))
    nobody = replace(rollout, sequence=torch.where(rollout.group[:, None] == 1, torch.nan, rollout.sequence))
    assert sum_rewards(nobody).judged.tolist() == [True] * 4 + [False] * 2 + [True] * 3


def test_equal_weights_of_one_reward_are_that_reward() -> None:
    rollout = make_rollout(dense=True)
    for advantage in (GroupNorm(), GroupNorm(tokens=Centred())):
        twice = replace(rollout, sequence=rollout.sequence.expand(-1, 2), tokens=rollout.tokens.expand(-1, -1, 2), weights=(0.5, 0.5))
        torch.testing.assert_close(update_of(twice, advantage).advantage, update_of(rollout, advantage).advantage)


def test_normalised_rewards_by_a_loop() -> None:
    """Each within its group, weighted, over the buffer: the advantage of `group-mean` is that number."""
    rollout = two_rewards()
    total = torch.zeros(9, dtype=torch.float64)
    for place, weight in enumerate(rollout.weights):
        for group in range(3):
            own = (rollout.group == group) & ~rollout.sequence[:, place].isnan()
            values = rollout.sequence[own, place]
            total[own] += weight * (values - values.mean()) / (values.std() + 1e-4)
    want = (total - total.mean()) / (total.std() + 1e-4)
    found = update_of(rollout, GroupMean(), combination=NormaliseThenSum()).advantage
    group_means = torch.stack([want[rollout.group == group].mean() for group in range(3)])[rollout.group]
    torch.testing.assert_close(found[:, 0], want - group_means)


def test_normalised_token_rewards_add_up_to_their_answers() -> None:
    rollout = two_rewards(dense=True)
    found = NormaliseThenSum()(rollout)
    sparse = replace(rollout, sequence=rollout.sequence + rollout.tokens.sum(1), tokens=torch.zeros_like(rollout.tokens))
    torch.testing.assert_close(found.sequence + masked_sum(found.tokens, rollout.mask), NormaliseThenSum()(sparse).sequence)
    totals = [rollout.sequence[:, place] + rollout.tokens[..., place].sum(1) for place in range(2)]
    judged = [~total.isnan() for total in totals]
    scaled, shares = torch.zeros(9, dtype=torch.float64), torch.zeros_like(found.tokens)
    for place, weight in enumerate(rollout.weights):
        for group in range(3):
            own = (rollout.group == group) & judged[place]
            values = totals[place][own]
            scaled[own] += weight * (values - values.mean()) / (values.std() + 1e-4)
            shares[own] += weight * rollout.tokens[own][..., place] / (values.std() + 1e-4)
    torch.testing.assert_close(found.tokens, shares / (scaled.std() + 1e-4))


def test_a_scale_of_one_reward_changes_a_sum_and_nothing_that_is_normalised_first() -> None:
    rollout = two_rewards()
    louder = replace(rollout, sequence=rollout.sequence * torch.tensor([1000.0, 1.0], dtype=torch.float64))
    for combination, changes in ((SumRewards(), True), (NormaliseThenSum(), False)):
        found = [update_of(one, GroupMean(), combination=combination).advantage for one in (rollout, louder)]
        assert (float((found[0] - found[1]).abs().max()) > 0.05) == changes


def test_facts_of_each_reward() -> None:
    facts = update_of(two_rewards(), GroupMean()).facts
    rewards = two_rewards().sequence
    assert facts["rewards/0/mean"] == pytest.approx(float(rewards[:, 0].nanmean()))
    assert facts["rewards/1/mean"] == pytest.approx(float(rewards[:, 1].mean()))
