"""Rewards kept apart: advantages, returns and values of each, weighted sums, MGDA. Test of online/combine.py, online/mixture.py, online/mgda.py."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from finegrain.commands.online import OnlineSettings
from finegrain.errors import UsageError
from finegrain.online.combine import SumAdvantages, split_rollout
from finegrain.online.gae import GAE, Returns
from finegrain.online.groups import Centred, GreedyBaseline, GroupMean, GroupNorm
from finegrain.online.leash import InReward
from finegrain.online.macro import MacroGAE
from finegrain.online.mgda import MGDA
from finegrain.online.pama import PAMA, KeepSigns, LeastPerToken, OneScalar
from finegrain.online.policy_loss import PolicyLoss, SeparateCritic, SharedCritic
from finegrain.online.ppo import PPO
from finegrain.online.rollout import Rollout
from finegrain.online.stages import Stages, Update
from finegrain.online.transforms import Transforms
from finegrain.online.value_loss import ValueLoss
from finegrain.online.whiten import WhitenBiased, WhitenUnbiased
from finegrain.train.read_contract import contract_of
from finegrain.types import OUTPUT_GRAM
from tests.online.apart import drawn, logged, make_pair, several, total
from tests.online.rollouts import make_rollout, update_of
from tests.online.sides import MASK, make_side, pair_of
from tests.online.stage_laws import LAWS, Law

APART = {"sum": SumAdvantages(), "mgda": MGDA(), "pama": PAMA(), "least": PAMA(reading=LeastPerToken()), "scalar": PAMA(reading=OneScalar())}
TWO = PolicyLoss(objectives=("one", "two"), mixing=MGDA())


ONE_LAW = [
    (name, law)
    for name in APART
    for law in LAWS
    if law.__name__ != "unjudged_answers" and (name, law.__name__) != ("scalar", "permutation")  # the density of equal advantages is rounding
]


@pytest.mark.parametrize(("name", "law"), ONE_LAW, ids=lambda one: one if isinstance(one, str) else one.__name__)
def test_law(name: str, law: Law) -> None:
    """Of one reward that is kept apart; an answer that nobody judged is tested below, for its weight is 0."""
    advantage = {"pama": GroupNorm(tokens=Centred()), "mgda": GAE(), "least": Returns()}.get(name, GAE())
    law(lambda rollout: update_of(rollout, advantage, InReward(), None if name == "pama" else WhitenBiased(), combination=APART[name]))


@pytest.mark.parametrize("advantage", [GAE(), MacroGAE(), GroupNorm(), GroupMean(tokens=Centred()), Returns()], ids=repr)
@pytest.mark.parametrize("whitening", [None, WhitenUnbiased()], ids=repr)
def test_each_reward_has_the_advantages_and_returns_that_it_would_have_alone(advantage: GAE, whitening: WhitenUnbiased | None) -> None:
    rollout = several(3, unjudged=False)
    together = update_of(rollout, advantage, InReward(), whitening, combination=PAMA())
    for place in range(3):
        only = replace(
            rollout, sequence=rollout.sequence[:, [place]], tokens=rollout.tokens[..., [place]], values=rollout.values[..., [place]], weights=(1.0,)
        )
        alone = update_of(only, advantage, InReward(), whitening)
        assert torch.equal(together.advantages[..., place], alone.advantage)
        if alone.returns is not None:
            assert torch.equal(together.returns[..., [place]], alone.returns)
    assert (together.returns is None) == (not advantage.reads_values)


def test_a_sum_of_advantages_is_the_advantage_of_the_sum() -> None:
    """GAE is linear: with weights that sum to 1 and the value that is the same sum, leash included; whitened they are two things."""
    rollout = several(2, unjudged=False, weights=(0.9, 0.1))
    summed = replace(rollout, values=(rollout.values * torch.tensor([0.9, 0.1], dtype=torch.float64)).sum(-1, keepdim=True))
    for whitening, same in ((None, True), (WhitenUnbiased(), False)):
        found = update_of(rollout, GAE(), InReward(), whitening, combination=SumAdvantages()).advantage
        assert torch.allclose(found, update_of(summed, GAE(), InReward(), whitening).advantage, rtol=1e-10, atol=1e-12) == same


def test_a_reward_that_did_not_judge_an_answer() -> None:
    """It has neither advantage nor return there; the others train; what nobody judged has weight 0."""
    rollout = several(2)
    found = update_of(rollout, GAE(), whitening=WhitenUnbiased(), combination=PAMA())
    assert not found.advantages[1, :, 0].any()
    assert found.advantages[1, :, 1].any()
    assert found.returns[1, :, 0][rollout.mask[1]].isnan().all()
    assert not found.returns[1, :, 1].isnan().any()
    assert not found.returns[rollout.mask.logical_not()].isnan().any()
    assert found.weight is None
    nobody = replace(rollout, sequence=torch.where(torch.arange(9)[:, None] == 1, torch.nan, rollout.sequence))
    for advantage in (GAE(), GroupNorm()):
        none = update_of(nobody, advantage, combination=PAMA())
        assert none.weight[1].eq(0).all()
        assert not none.advantages[1].any()
        assert none.facts["unjudged"] == 1
        assert none.returns is None or not none.returns.isnan().any()


def test_a_value_without_a_return_is_not_trained() -> None:
    side = make_side(values=2)
    returns = side.sampled.returns.clone()
    returns[0, :, 1] = torch.nan
    bare = replace(side, sampled=side.sampled._replace(returns=returns))
    loss = total(ValueLoss(values=2), pair_of(bare))
    (slope,) = torch.autograd.grad(loss, side.values)
    (whole,) = torch.autograd.grad(total(ValueLoss(values=2), pair_of(side)), side.values)
    assert not slope[0, :, 1].any()
    assert torch.equal(slope[0, :, 0], whole[0, :, 0])
    assert torch.equal(slope[1:], whole[1:])


def test_facts_and_pages() -> None:
    rollout = replace(several(2, weights=(2.0, -1.0)), names=("good", "short"))
    found = update_of(rollout, GAE(), InReward(), combination=SumAdvantages())
    summed = update_of(replace(rollout, values=rollout.values[..., :1]), GAE(), InReward())
    assert found.facts["reward"] == pytest.approx(summed.facts["reward"])
    torch.testing.assert_close(found.rewards.score, summed.rewards.score)
    torch.testing.assert_close(found.rewards.penalty, summed.rewards.penalty)
    names = [f"value/explained_variance/{name}" for name in ("good", "short")]
    assert found.facts["value/explained_variance"] == pytest.approx(sum(found.facts[name] for name in names) / 2)
    alone = update_of(make_rollout(0, dense=True), GAE(), InReward())
    assert found.facts[names[0]] == pytest.approx(alone.facts["value/explained_variance"])
    assert "value/explained_variance" not in update_of(rollout, GroupNorm(), combination=PAMA()).facts


def test_what_logs_and_pages_show() -> None:
    """At the ratio 1 over the buffer: PAMA's pushed reward, and the plain mean where no gradient is known yet."""
    rollout = several(2, unjudged=False)
    found = {name: update_of(rollout, GAE(), combination=combination) for name, combination in APART.items()}
    noon = found["pama"].advantages.clamp(min=0)
    means = noon[rollout.mask].mean(0)
    torch.testing.assert_close(found["pama"].advantage, noon[..., int(means.argmin())])
    torch.testing.assert_close(found["least"].advantage, noon.amin(-1))
    torch.testing.assert_close(found["scalar"].advantage, torch.where(rollout.mask, means.min(), 0.0))
    torch.testing.assert_close(found["mgda"].advantage, found["mgda"].advantages.mean(-1))
    assert found["sum"].advantages is None


def test_mgda_weighs_losses_by_their_gradients() -> None:
    """Orthogonal gradients: weights in inverse proportion to their squared norms; one that contains the other: the shorter alone."""
    pair = make_pair(drawn(2))
    for gram, weights, cosine in (([[1.0, 0.0], [0.0, 3.0]], [0.75, 0.25], 0.0), ([[4.0, 2.0], [2.0, 1.0]], [0.0, 1.0], 1.0)):
        given = replace(pair, statistics={OUTPUT_GRAM: torch.tensor(gram, dtype=torch.float64)})
        found = logged(TWO, given)
        assert [found["mgda/c/one"], found["mgda/c/two"], found["mgda/cosine"]] == pytest.approx([*weights, cosine])
        slope = torch.autograd.grad(total(TWO, given), given.answer.logp)[0]
        plain = [replace(pair.answer, sampled=pair.answer.sampled._replace(advantage=drawn(2)[..., place])) for place in range(2)]
        want = [torch.autograd.grad(total(PolicyLoss(), pair_of(side)), side.logp)[0] for side in plain]
        torch.testing.assert_close(slope, weights[0] * want[0] + weights[1] * want[1])


@pytest.mark.parametrize("loss", [TWO, replace(TWO, single=True)], ids=["several updates", "one update"])
def test_slopes_are_those_of_the_losses(loss: PolicyLoss) -> None:
    pair = make_pair(drawn(2), drift=0.5)
    slopes = contract_of(loss).output_slopes(pair)
    for place in range(2):
        side = replace(pair.answer, sampled=pair.answer.sampled._replace(advantage=pair.answer.sampled.advantages[..., place], advantages=None))
        only = replace(loss, mixing=None, objectives=("one",))
        (want,) = torch.autograd.grad(only(pair_of(side))["policy"].value.sum(), side.logp)
        assert torch.equal(slopes[..., place], want)
    assert not slopes[~MASK].any()


def test_critics() -> None:
    """A shared critic has a value for each reward; a separate one is sized by the stages."""
    algorithm = PPO(combination=PAMA())
    stages = algorithm.stages()
    assert algorithm.policy_loss(stages, rewards=("a", "b", "c")).values == 3
    assert (stages.count_values(3), PPO().stages().count_values(3)) == (3, 1)
    assert PPO().policy_loss(PPO().stages(), rewards=("a", "b", "c")).values == 1
    separate = PPO(combination=SumAdvantages(), critic=SeparateCritic())
    assert separate.policy_loss(separate.stages(), rewards=("a", "b")).mixing is None
    side = make_side(values=3)
    terms = PolicyLoss(objectives=("a", "b", "c"), critic=SharedCritic(coefficient=1.0))(pair_of(side))
    torch.testing.assert_close(terms["value"].value, ValueLoss(values=3)(pair_of(side))["value"].value)


def refused(rollout: Rollout, **stages: object) -> Update:
    return update_of(rollout, stages.pop("advantage", GAE()), **stages)


def test_what_means_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 rewards that are kept apart have 2"):
        refused(replace(several(2), values=torch.zeros(9, 7, 1)), combination=PAMA())
    with pytest.raises(UsageError, match="greedy"):
        Stages(combination=PAMA(), advantage=GreedyBaseline())
    with pytest.raises(UsageError, match="'base' is that of one reward"):
        Stages(combination=SumAdvantages(), transforms=Transforms(baseline="base"))
    with pytest.raises(UsageError, match="mean 0"):
        Stages(combination=PAMA(clamp=KeepSigns()), whitening=WhitenUnbiased())
    assert Stages(combination=PAMA(clamp=KeepSigns(), reading=LeastPerToken()), whitening=WhitenUnbiased())
    given = {"model": "m", "data": "d", "out": tmp_path, "reward": ("a.py:a", "a.py:b"), "reward_weights": (0.9, 0.1)}
    for combination in (PAMA(), MGDA()):
        with pytest.raises(UsageError, match="--reward-weights"):
            OnlineSettings(**given, algorithm=PPO(combination=combination))
    assert OnlineSettings(**given, algorithm=PPO(combination=SumAdvantages()))


def test_the_answers_once_for_each_reward() -> None:
    rollout = replace(several(2), names=("one", "two"))
    parts = split_rollout(rollout)
    assert [part.names for part in parts] == [("one",), ("two",)]
    assert torch.equal(torch.cat([part.values for part in parts], -1), rollout.values)
    assert split_rollout(replace(rollout, values=None))[1].values is None
