"""Comparison of the answers to a prompt: worked numbers, answers that nobody judged, groups of one, token rewards beside a group's baseline."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from finegrain.credit.r3hf import R3HF, add_centred_rewards
from finegrain.errors import UsageError
from finegrain.online.groups import BatchStd, Centred, GreedyBaseline, GroupMean, GroupNorm, LeashToGo, LeaveOneOut, LengthWeighted
from finegrain.online.leash import K1, InReward, estimate_kl
from finegrain.online.rollout import Rollout
from finegrain.online.stages import Advantage
from finegrain.ops.masked import masked_mean, masked_sum
from tests.online.rollouts import GROUP, make_rollout, scalars, update_of

COMPARING: tuple[Advantage, ...] = (LeaveOneOut(), GroupNorm(), GroupNorm(scale=BatchStd()), GroupMean(), LengthWeighted())


def rows(rollout: Rollout, advantage: Advantage) -> Tensor:
    return update_of(rollout, advantage).advantage[:, 0]


@pytest.mark.parametrize(
    ("advantage", "size"), [(GroupNorm(), 0.86588), (GroupNorm(epsilon=1e-6), 0.866024), (LeaveOneOut(), 2 / 3), (GroupMean(), 0.5)]
)
def test_worked(advantage: Advantage, size: float) -> None:
    assert rows(scalars([1, 0, 0, 1]), advantage).tolist() == pytest.approx([size, -size, -size, size], abs=5e-6)


def test_lengths_weigh_in_opo() -> None:
    """Lengths 1, 2, 3, 4: the baseline is (1 + 4) / 10."""
    assert rows(scalars([1, 0, 0, 1], [1, 2, 3, 4]), LengthWeighted()).tolist() == [0.5, -0.5, -0.5, 0.5]
    assert rows(scalars([1, 0], [1, 3]), LengthWeighted()).tolist() == [0.75, -0.25]


@pytest.mark.parametrize("advantage", COMPARING)
def test_equal_rewards_are_exactly_0(advantage: Advantage) -> None:
    assert rows(scalars([0.1, 0.1, 0.1]), advantage).tolist() == [0, 0, 0]


@pytest.mark.parametrize("advantage", COMPARING)
def test_the_mean_of_a_group_is_0(advantage: Advantage) -> None:
    rollout = make_rollout()
    found = rows(rollout, advantage)
    for group in range(3):
        own = rollout.group == group
        mean = float(found[own].sum())
        assert isinstance(advantage, LengthWeighted) or mean == pytest.approx(0, abs=1e-12)
        if isinstance(advantage, LengthWeighted):
            assert float((found * rollout.lengths)[own].sum()) == pytest.approx(0, abs=1e-12)


def test_standard_deviation_of_the_batch() -> None:
    rollout = make_rollout()
    std = rollout.sequence[rollout.judged].std()
    torch.testing.assert_close(rows(rollout, GroupNorm(scale=BatchStd())), rows(rollout, GroupMean()) / (std + 1e-4))


@pytest.mark.parametrize("advantage", COMPARING)
def test_one_answer(advantage: Advantage) -> None:
    """A group of one has the reward itself (verl), over 1; the only judged answer of several has nothing to be compared with."""
    alone = float(rows(scalars([3.0]), advantage))
    assert alone == pytest.approx(3.0, rel=1e-3) or isinstance(getattr(advantage, "scale", None), BatchStd)
    assert rows(scalars([3.0, torch.nan, torch.nan]), advantage).tolist() == [0, 0, 0]


def test_leave_one_out_counts_judged_answers_alone() -> None:
    assert rows(scalars([3.0, torch.nan, 1.0, 2.0]), LeaveOneOut()).tolist() == pytest.approx([1.5, 0, -1.5, 0])


def test_remax() -> None:
    rollout = scalars([3.0, 1.0], [2, 1])
    found = update_of(rollout, GreedyBaseline(), greedy=torch.tensor([0.5, torch.nan], dtype=torch.float64)).advantage
    assert found.tolist() == [[2.5, 2.5], [0, 0]]
    with pytest.raises(UsageError, match="greedy"):
        update_of(rollout, GreedyBaseline())


def test_leash_summed_before_or_to_go_behind_the_baseline() -> None:
    """TRL's RLOO with the KL in the reward is not OpenRLHF's with the same beta."""
    rollout = make_rollout(unjudged=False)
    kl = 0.05 * estimate_kl(K1(), rollout.old_logp, rollout.ref_logp, rollout.mask)
    plain = replace(rollout, sequence=rollout.sequence - masked_sum(kl, rollout.mask)[:, None])
    torch.testing.assert_close(update_of(rollout, LeaveOneOut(), InReward()).advantage, update_of(plain, LeaveOneOut()).advantage)
    to_go = torch.where(rollout.mask, update_of(rollout, LeaveOneOut()).advantage - kl.flip(1).cumsum(1).flip(1), 0.0)
    torch.testing.assert_close(update_of(rollout, LeaveOneOut(tokens=LeashToGo()), InReward()).advantage, to_go)


def redistributed() -> tuple[Rollout, Rollout]:
    """Rewards of whole answers, and the same as differences of prefix scores with one prompt score per group."""
    sparse = make_rollout(unjudged=False)
    scores = torch.randn(sparse.mask.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    last = torch.where(sparse.mask, torch.arange(scores.shape[1]), -1).amax(1)
    scores[torch.arange(len(scores)), last] = sparse.sequence[:, 0]
    empty = torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64)[torch.tensor(GROUP)]
    dense = replace(sparse, tokens=R3HF()(scores, empty, sparse.mask)[..., None], sequence=torch.zeros_like(sparse.sequence))
    return sparse, dense


def test_leave_one_out_of_redistributed_rewards_is_that_of_the_rewards() -> None:
    sparse, dense = redistributed()
    torch.testing.assert_close(update_of(dense, LeaveOneOut()).advantage, update_of(sparse, LeaveOneOut()).advantage)


@pytest.mark.parametrize("leash", [None, InReward()])
def test_centred_rewards_have_the_advantage_of_the_answer_as_their_mean(leash: InReward | None) -> None:
    _, dense = redistributed()
    whole, centred = (update_of(dense, LeaveOneOut(tokens=tokens), leash) for tokens in (Centred(alpha=0.0), Centred(alpha=0.7)))
    torch.testing.assert_close(whole.advantage, update_of(dense, LeaveOneOut(), leash).advantage)
    torch.testing.assert_close(masked_mean(centred.advantage, dense.mask), masked_mean(whole.advantage, dense.mask))
    want = add_centred_rewards(whole.advantage[:, 0], centred.rewards.total, dense.mask, alpha=0.7)
    torch.testing.assert_close(centred.advantage, want)


def test_the_naive_pairing_that_the_centred_form_replaces_drifts_one_way() -> None:
    """Group rewards far below 0: a sequence-sized baseline taken from every token reward is above 0 for all tokens; centred ones are not."""
    rollout = replace(scalars([0.0] * 4, [6] * 4), tokens=torch.randn(4, 6, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 2)
    naive = rollout.tokens[..., 0] - rollout.tokens[..., 0].sum(1).mean()
    assert bool((naive > 0).all())
    found = update_of(rollout, GroupMean(tokens=Centred())).advantage
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert bool((found > 0).any() and (found < 0).any())
