"""Token rewards: centred over the data, weighted by certainty."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from finegrain.credit.signals import Column, Implicit, Table
from finegrain.credit.token_reward import TokenReward, certainty
from finegrain.errors import UsageError
from finegrain.ops.segmenters import Whole
from finegrain.types import Scored
from tests.credit.fake import FakeContext, pair_context, random_context


def test_worked_without_uncertainty() -> None:
    columns = TokenReward().prepare(pair_context([np.array([1.0, 2.0]), None], [np.array([6.0]), None]))
    assert columns["chosen"].reward[0].tolist() == [-2.0, -1.0]
    assert columns["rejected"].reward[0].tolist() == [3.0]
    assert columns["chosen"].weight == [None, None]
    assert columns["chosen"].segment[0].tolist() == [0, 1]
    assert columns["rejected"].reward[1] is None
    assert columns["chosen"].annotated == [True, False]
    assert TokenReward(segmenter=Whole()).prepare(pair_context([np.array([1.0, 2.0])], [np.array([6.0])]))["chosen"].segment[0].tolist() == [0, 0]


def test_rewards_of_all_tokens_have_mean_zero_and_nothing_off_the_mask() -> None:
    context = random_context(1)
    columns = TokenReward(signal=Column()).prepare(context)
    inside, outside = [], []
    for role, column in columns.items():
        for reward, mask in zip(column.reward, context.masks(role), strict=True):
            if reward is not None:
                inside.append(reward[mask])
                outside.append(reward[~mask])
    assert abs(np.concatenate(inside).mean()) < 1e-6
    assert (np.concatenate(outside) == 0).all()


def test_certainty_worked() -> None:
    """rms 2: std 0 is certain, std 2 half, a huge std nothing."""
    assert certainty(torch.tensor([0.0, 2.0, 1e9]), scale=2.0).tolist() == pytest.approx([1.0, 0.5, 0.0], abs=1e-12)
    assert certainty(torch.tensor([0.0, 1.0]), scale=0.0).tolist() == [1.0, 0.0]
    mean = torch.tensor([1.0, 5.0])
    implicit = {role: [Scored(mean, torch.tensor([0.0, 2.0]))] for role in ("chosen", "rejected")}
    masks = {role: [np.ones(2, dtype=bool)] for role in implicit}
    context = FakeContext(signs={"chosen": np.ones(1), "rejected": -np.ones(1)}, role_masks=masks, implicit=implicit)
    assert TokenReward(signal=Implicit(scorer="judge")).prepare(context)["chosen"].weight[0].tolist() == [1.0, 0.5]


def test_two_members() -> None:
    """d = 0 and 2: s^2 = 0 and 2, pooled 1; n0 = 1: variances .5 and 1.5; rms of the centred means 2: 4/4.5 and 4/5.5."""
    mean, members = torch.tensor([1.0, 5.0]), torch.tensor([[1.0, 5.0], [1.0, 7.0]])
    implicit = {role: [Scored(mean, None, members)] for role in ("chosen", "rejected")}
    masks = {role: [np.ones(2, dtype=bool)] for role in implicit}
    context = FakeContext(signs={"chosen": np.ones(1), "rejected": -np.ones(1)}, role_masks=masks, implicit=implicit)
    assert TokenReward(signal=Implicit(scorer="judge"), n0=1.0).prepare(context)["rejected"].weight[0].tolist() == pytest.approx([4 / 4.5, 4 / 5.5])


def test_settings() -> None:
    assert TokenReward(n0=0.0).n0 == 0.0
    with pytest.raises(UsageError, match="n0"):
        TokenReward(n0=-0.5)
    with pytest.raises(UsageError, match="size"):
        TokenReward(size=0.0)
    with pytest.raises(UsageError, match="contradicts"):
        TokenReward(scorer="judge", signal=Column())


def test_a_single_member_gives_no_weight() -> None:
    mean = torch.tensor([1.0, 5.0])
    implicit = {role: [Scored(mean, None, mean[None])] for role in ("chosen", "rejected")}
    masks = {role: [np.ones(2, dtype=bool)] for role in implicit}
    context = FakeContext(signs={"chosen": np.ones(1), "rejected": -np.ones(1)}, role_masks=masks, implicit=implicit)
    assert TokenReward(signal=Implicit(scorer="judge")).prepare(context)["chosen"].weight == [None]


def test_the_runs_own_scorer_gives_shrunken_targets_of_any_size_without_weights() -> None:
    """A posterior mean is the best target whatever its deviation; no knowledge, no target: the policy stays at the reference."""
    context = random_context(1)
    columns, doubled = TokenReward(signal=Table()).prepare(context), TokenReward(signal=Table(), size=2.0).prepare(context)
    for role, column in columns.items():
        assert all(weight is None for weight in column.weight)
        for one, two in zip(column.reward, doubled[role].reward, strict=True):
            if one is not None:
                np.testing.assert_allclose(two, 2 * one, rtol=1e-6)
    nothing = {role: [Scored(torch.zeros(len(mask)), torch.zeros(len(mask))) for mask in context.masks(role)] for role in context.signs}
    for column in TokenReward(signal=Table()).prepare(replace(context, table=nothing)).values():
        assert all(reward is None or not reward.any() for reward in column.reward)
