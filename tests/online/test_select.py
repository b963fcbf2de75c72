"""Filters of PF-PPO (online/select.py): weights, what is drawn, ties, what it leaves alone, and plain PPO as its limit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.online.gae import GAE
from finegrain.online.groups import GroupNorm
from finegrain.online.leash import InReward
from finegrain.online.ppo import PPO
from finegrain.online.select import (
    BestOnly,
    BestRandom,
    BestWorst,
    Even,
    KeepAll,
    Power,
    Resample,
    RewardFilter,
    Selection,
    Subset,
    Top,
    TopBottom,
    TopRandom,
    select_answers,
    weigh_answers,
)
from finegrain.online.stages import Stages, Update, compute_update
from finegrain.online.transforms import MaskTruncated, Overlong, Transforms
from finegrain.online.whiten import WhitenUnbiased
from finegrain.types import Pair, SampledTokens, Side
from tests.online.rollouts import make_rollout, scalars
from tests.online.sides import total

R = torch.tensor([0.2, -0.7, 0.9, 0.1, -0.3], dtype=torch.float64)
RANKS: tuple[RewardFilter, ...] = (BestOnly(), BestRandom(), BestWorst(), Even())
EVERY: tuple[RewardFilter, ...] = (*RANKS, Power(), Power(by_prompt=False), Top(top=0.0), TopRandom(top=0.0), TopBottom(top=0.1, bottom=-0.5))


def weights(chosen: RewardFilter, reward: Tensor = R) -> list[float]:
    return [round(value, 12) for value in chosen.weigh(reward).tolist()]


def test_weights_of_the_sheet() -> None:
    assert weights(BestOnly()) == [0, 0, 1, 0, 0]
    assert weights(BestRandom()) == [0.125, 0.125, 0.5, 0.125, 0.125]
    assert weights(BestWorst()) == [0, 0.5, 0.5, 0, 0]
    assert weights(Even()) == [0.2] * 5
    assert weights(Power(k=1.0), torch.tensor([0.5, -1.0, 0.5])) == [0.25, 0.5, 0.25]
    assert weights(Top(top=0.2)) == [0.5, 0, 0.5, 0, 0]
    assert weights(TopRandom(top=0.2)) == [0.25, round(1 / 6, 12), 0.25, round(1 / 6, 12), round(1 / 6, 12)]
    assert weights(TopBottom(top=0.2, bottom=-0.3)) == [0.25] * 2 + [0.25, 0, 0.25]
    assert weights(Top(top=2.0)) == [0] * 5
    assert weights(TopRandom(top=2.0)) == [0.2] * 5
    with pytest.raises(UsageError, match="below top"):
        TopBottom(top=0.0, bottom=0.0)


@pytest.mark.parametrize("chosen", RANKS)
def test_rank_filters_know_the_order_alone(chosen: RewardFilter) -> None:
    for changed in (R.exp(), 3 * R - 7, R**3):
        assert weights(chosen, changed) == weights(chosen)
    assert weights(Power(), R.exp()) != weights(Power())


@pytest.mark.parametrize("chosen", EVERY)
def test_a_single_answer_is_drawn(chosen: RewardFilter) -> None:
    assert weigh_answers(chosen, torch.tensor([0.7]), torch.zeros(1, dtype=torch.long), torch.tensor([True])).weight.sum() > 0
    if chosen != Power(by_prompt=False):
        assert chosen.weigh(torch.tensor([0.7])).tolist() == [1.0]


def drawn(chosen: RewardFilter, reward: Tensor, group: Tensor, draws: int) -> Tensor:
    """Mean number of times each answer trains."""
    everyone = torch.ones_like(group).bool()
    found = [select_answers(chosen, reward, group, everyone, (seed,)).rows.bincount(minlength=len(reward)).double() for seed in range(draws)]
    return torch.stack(found).mean(0)


def test_draws_follow_the_weights_in_groups_of_unequal_sizes() -> None:
    reward, group = torch.cat([R, R[:3]]), torch.tensor([0] * 5 + [1] * 3)
    for chosen, want in ((BestRandom(), [5 / 8, 5 / 8, 5 / 2, 5 / 8, 5 / 8, 3 / 4, 3 / 4, 3 / 2]), (Even(), [1.0] * 8)):
        got = drawn(chosen, reward, group, 250)
        assert (got - torch.tensor(want)).abs().max() < 0.4
    assert select_answers(Even(), reward, group, torch.ones(8).bool(), (3, 4)).rows.tolist() == sorted(
        select_answers(Even(), reward, group, torch.ones(8).bool(), (3, 4)).rows.tolist()
    )
    one, other = (select_answers(Even(), reward, group, torch.ones(8).bool(), (3, number)).rows for number in (4, 5))
    assert one.tolist() != other.tolist()


def test_a_subset_keeps_the_best_and_one_other_each_as_often() -> None:
    reward, group, everyone = torch.cat([R, R[:3]]), torch.tensor([0] * 5 + [1] * 3), torch.ones(8).bool()
    found = [select_answers(BestRandom(draw=Subset()), reward, group, everyone, (seed,)).rows.tolist() for seed in range(200)]
    assert all(len(set(rows)) == 4 and 2 in rows and 7 in rows for rows in found)
    counts = np.bincount(np.concatenate(found), minlength=8)
    assert counts[[0, 1, 3, 4]].min() > 30
    assert counts[[5, 6]].min() > 70
    assert select_answers(BestWorst(draw=Subset()), reward, group, everyone, (0,)).rows.tolist() == [1, 2, 6, 7]
    assert select_answers(BestOnly(draw=Subset()), reward, group, everyone, (0,)).rows.tolist() == [2, 7]
    kept = [len(select_answers(TopRandom(top=0.2, draw=Subset()), R, torch.zeros(5).long(), torch.ones(5).bool(), (s,)).rows) for s in range(150)]
    assert abs(np.mean(kept) - 3.5) < 0.3


def test_ties_are_dropped_and_counted() -> None:
    reward, group, everyone = torch.tensor([1.0, 1.0, 0.0, 2.0, 5.0]), torch.tensor([0, 0, 1, 1, 2]), torch.ones(5).bool()
    found = select_answers(BestWorst(draw=Subset()), reward, group, everyone, (0,))
    assert found.rows.tolist() == [2, 3, 4]
    facts = found.facts(reward, everyone)
    assert (facts["selection/ties"], facts["selection/rows"], facts["selection/kept"]) == (1, 3, 0.6)
    assert facts["selection/reward"] == pytest.approx(7 / 3)
    kept = select_answers(BestWorst(draw=Subset(), drop_ties=False), reward, group, everyone, (0,))
    assert kept.rows.tolist() == [0, 1, 2, 3, 4]
    assert kept.weighed.ties == 1
    empty = select_answers(Top(top=3.0), reward, group, everyone, (0,))
    assert empty.rows.tolist() == [4]
    assert (empty.weighed.ties, empty.weighed.empty) == (1, 1)
    nothing = select_answers(BestOnly(), reward[:2], group[:2], everyone[:2], (0,))
    assert len(nothing.rows) == 0
    assert nothing.facts(reward[:2], everyone[:2])["selection/kept"] == 0


STAGES = Stages(advantage=GAE(), leash=InReward(), whitening=WhitenUnbiased(), transforms=Transforms(truncated=MaskTruncated()))


def update_with(selection: Selection, stages: Stages = STAGES, dense: bool = False, seed: int = 0) -> Update:
    chosen = replace(stages, selection=selection)
    return compute_update(make_rollout(dense=dense), chosen, chosen.start(), seed=(seed,))


@pytest.mark.parametrize("chosen", EVERY)
def test_baselines_and_whitening_have_seen_all(chosen: RewardFilter) -> None:
    """Advantages, returns and the logged numbers of the buffer are those of the unfiltered one; nobody trains that may not."""
    for stages in (STAGES, replace(STAGES, advantage=GroupNorm())):
        want, got = update_with(KeepAll(), stages), update_with(chosen, stages)
        assert want.rows is None
        assert torch.equal(got.advantage, want.advantage)
        assert {name: got.facts[name] for name in want.facts} == want.facts
        assert got.rows is not None
        assert not {0, 1, 7} & set(got.rows.tolist())  # cut, not judged, cut
        assert len(got.rows) > 0


def test_the_reward_is_the_whole_one_after_penalties_and_without_the_leash() -> None:
    rollout = make_rollout(dense=True, unjudged=False)
    whole = rollout.sequence[:, 0] + torch.where(rollout.mask, rollout.tokens[..., 0], 0.0).sum(1)
    stages = Stages(advantage=GroupNorm(), selection=BestOnly())
    rows = compute_update(rollout, stages, stages.start()).rows
    best = {group: max(range(9), key=lambda row, group=group: float(whole[row]) if rollout.group[row] == group else -99) for group in range(3)}
    assert set(rows.tolist()) <= set(best.values())
    leashed = replace(stages, leash=InReward(beta=50.0))
    assert torch.equal(compute_update(rollout, leashed, leashed.start()).rows, rows)
    scaled = replace(stages, transforms=Transforms(overlong=Overlong(longest=3, buffer=3, factor=1e6)))
    shortest = compute_update(rollout, scaled, scaled.start()).rows
    assert set(shortest.tolist()) <= {3, 4, 6}


def step_gradient(update: Update, algorithm: PPO, rows: Tensor) -> Tensor:
    """Gradient of one step of the policy's loss on some rows of the buffer, from a policy that has moved."""
    rollout = make_rollout()
    logp = (
        rollout.old_logp + 0.3 * torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ).requires_grad_()
    weight = rollout.mask.double() if update.weight is None else update.weight
    take = lambda values: None if values is None else values[rows]
    sampled = SampledTokens(rollout.old_logp[rows], update.advantage[rows], take(update.returns), take(rollout.values))
    side = Side(logp=logp[rows], mask=rollout.mask[rows], values=take(rollout.values), weight=weight[rows], sampled=sampled)
    return torch.autograd.grad(total(algorithm.policy_loss(STAGES)(Pair(sides={"answer": side}))), logp)[0]


def test_repeated_rows_are_integer_weights() -> None:
    update, rows = update_with(KeepAll()), torch.tensor([2, 2, 2, 4, 5, 5, 8])
    repeated = step_gradient(update, PPO(), rows)
    counts = rows.bincount(minlength=9).double()
    weighed = step_gradient(update._replace(weight=make_rollout().mask * counts[:, None]), PPO(), torch.arange(9))
    torch.testing.assert_close(repeated, weighed, rtol=1e-12, atol=1e-12)


def test_even_weights_are_ppo_in_expectation() -> None:
    """The mean over many draws of the loss summed over the buffer is that of all answers; that of best-only is not."""
    update, rollout = update_with(KeepAll()), make_rollout()
    loss = torch.where(update.weight > 0, update.advantage, 0.0).sum(1)
    trains = torch.tensor([False, False, True, True, True, True, True, False, True])
    for chosen, same in ((Even(), True), (BestOnly(), False)):
        rows = [select_answers(chosen, rollout.sequence[:, 0], rollout.group, trains, (seed,)).rows for seed in range(150)]
        sums = torch.stack([loss[own].sum() for own in rows])
        far = (sums.mean() - loss[trains].sum()).abs() / (sums.std() / len(sums) ** 0.5 + 1e-12)
        assert bool(far < 4) == same


def test_two_answers_and_best_worst_are_ppo() -> None:
    rollout = replace(scalars([0.3, -0.2]), group=torch.tensor([5, 5]))
    for draw in (Subset(), Resample()):
        stages = Stages(advantage=GroupNorm(), selection=BestWorst(draw=draw))
        rows = [compute_update(rollout, stages, stages.start(), seed=(seed,)).rows for seed in range(30)]
        mean = torch.stack([own.bincount(minlength=2).double() for own in rows]).mean(0)
        assert (mean - 1).abs().max() < 0.45
        assert isinstance(draw, Resample) or all(own.tolist() == [0, 1] for own in rows)


def test_a_buffer_repeats_its_draws() -> None:
    first, again, other = (update_with(BestRandom(), seed=seed).rows.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
