"""PAMA: Theorem 1 by hand, limits to PPO, permutation, scaling, clipped tokens, readings, moving mean, the command's settings."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.online.gae import GAE
from finegrain.online.grpo import GRPO
from finegrain.online.mgda import MGDA
from finegrain.online.mixture import LossMixture
from finegrain.online.pama import (
    PAMA,
    KeepSigns,
    LeastPerToken,
    MovingMean,
    OneScalar,
    ParetoPoint,
    ToReference,
    find_pareto_point,
    project_zero,
)
from finegrain.online.policy_loss import PolicyLoss
from finegrain.online.ppo import PPO
from finegrain.online.surrogates import Cispo, SequenceRatio
from finegrain.online.whiten import WhitenUnbiased
from finegrain.train.read_contract import contract_of
from finegrain.types import Pair
from tests.online.apart import drawn, logged, make_pair, several, total, with_statistics
from tests.online.rollouts import update_of
from tests.online.sides import MASK

TWO = PolicyLoss(objectives=("one", "two"), mixing=PAMA())


def point(*means: float) -> ParetoPoint:
    return find_pareto_point(torch.tensor(means, dtype=torch.float64))


def slope(loss: PolicyLoss, pair: Pair) -> Tensor:
    return torch.autograd.grad(total(loss, pair), pair.answer.logp)[0]


def plain(pair: Pair, advantage: Tensor) -> Pair:
    """The same answers with one advantage."""
    side = pair.answer
    return replace(pair, sides={"answer": replace(side, sampled=side.sampled._replace(advantage=advantage, advantages=None))})


@pytest.mark.parametrize(
    ("means", "scalar", "weights"),
    [
        ((0.3, 0.1), 0.1, [0, 1]),
        ((-0.2, 0.6), 0.0, [0.75, 0.25]),
        ((-0.5, -0.2), -0.2, [0, 1]),
        ((0.2, 0.2, 0.3), 0.2, [1, 0, 0]),
        ((0.0, 0.4), 0.0, [1, 0]),
        ((0.0, -0.4), 0.0, [1, 0]),
        ((0.7,), 0.7, [1]),
        ((-0.7,), -0.7, [1]),
        ((0.5, -0.1, 0.3), 0.0, [1 / 6, 5 / 6, 0]),
    ],
)
def test_theorem_1(means: tuple[float, ...], scalar: float, weights: list[float]) -> None:
    found = point(*means)
    assert float(found.scalar) == pytest.approx(scalar)
    assert found.weights.tolist() == pytest.approx(weights)


def test_no_other_weights_are_nearer_to_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        means = torch.randn(4, generator=generator, dtype=torch.float64)
        found = find_pareto_point(means)
        assert float(found.weights.min()) >= 0
        assert float(found.weights.sum()) == pytest.approx(1)
        assert float(found.weights @ means) == pytest.approx(float(found.scalar), abs=1e-12)
        others = torch.rand(200, 4, generator=generator, dtype=torch.float64)
        others = others / others.sum(1, keepdim=True)
        assert bool(((others @ means).abs() >= found.scalar.abs() - 1e-12).all())


def test_one_objective_is_ppo_without_negative_advantages() -> None:
    """And where none is negative PPO itself, to the bit."""
    advantages = drawn(1)
    loss = PolicyLoss(mixing=PAMA())
    for given in (advantages, advantages.abs()):
        pair = with_statistics(loss, make_pair(given))
        noon = torch.where(MASK, given[..., 0].clamp(min=0), torch.nan)
        assert torch.equal(slope(loss, pair), slope(PolicyLoss(), plain(pair, noon)))
        assert torch.equal(total(loss, pair), total(PolicyLoss(), plain(pair, noon)))
    assert not torch.equal(
        slope(loss, with_statistics(loss, make_pair(advantages))), slope(PolicyLoss(), plain(make_pair(advantages), advantages[..., 0]))
    )
    signed = replace(loss, mixing=PAMA(clamp=KeepSigns()))
    pair = with_statistics(signed, make_pair(advantages))
    assert torch.equal(slope(signed, pair), slope(PolicyLoss(), plain(pair, pair.answer.sampled.advantage)))


def test_the_reward_with_the_least_mean_is_pushed_and_keeps_its_tokens() -> None:
    advantages = drawn(2) * torch.tensor([1.0, 0.2], dtype=torch.float64)
    pair = with_statistics(TWO, make_pair(advantages))
    noon = torch.where(MASK, advantages[..., 1].clamp(min=0), torch.nan)
    assert torch.equal(slope(TWO, pair), slope(PolicyLoss(), plain(pair, noon)))
    found = logged(TWO, pair)
    ratio = (pair.answer.logp.detach() - pair.answer.sampled.old_logp).exp()
    means = [float(torch.where(ratio <= 1.2, advantages[..., place].clamp(min=0), 0.0)[MASK].mean()) for place in range(2)]
    assert [found["pama/a/one"], found["pama/a/two"]] == pytest.approx(means)
    assert (found["pama/c/one"], found["pama/c/two"], found["pama/pushed"]) == (0, 1, 1)
    assert found["pama/s"] == pytest.approx(means[1])


@pytest.mark.parametrize("reading", [PAMA(), PAMA(reading=LeastPerToken()), PAMA(reading=OneScalar()), PAMA(clamp=KeepSigns())], ids=repr)
def test_another_order_of_the_objectives_changes_the_order_of_the_weights_alone(reading: PAMA) -> None:
    loss, order = PolicyLoss(objectives=("a", "b", "c"), mixing=reading), [2, 0, 1]
    advantages = drawn(3)
    one = with_statistics(loss, make_pair(advantages))
    renamed = replace(loss, objectives=("c", "a", "b"))
    other = with_statistics(renamed, make_pair(advantages[..., order]))
    torch.testing.assert_close(slope(loss, one), slope(renamed, other))
    numbers = {name: value for name, value in logged(loss, one).items() if name != "pama/pushed"}
    assert {name: logged(renamed, other)[name] for name in numbers} == pytest.approx(numbers)


@pytest.mark.parametrize("reading", [PAMA(), PAMA(reading=LeastPerToken()), PAMA(reading=OneScalar())], ids=repr)
def test_nothing_good_trains_nothing(reading: PAMA) -> None:
    loss = PolicyLoss(objectives=("one", "two"), mixing=reading)
    assert not slope(loss, with_statistics(loss, make_pair(-drawn(2).abs()))).any()


def test_tokens_beyond_the_clip_contribute_nothing() -> None:
    """Neither to a_i, whatever their advantages are, nor to the gradient."""
    pair = make_pair(drawn(2).abs(), drift=0.5)
    beyond = MASK & ((pair.answer.logp - pair.answer.sampled.old_logp).exp() > 1.2)
    assert 0 < int(beyond.sum()) < int(MASK.sum())
    louder = torch.where(beyond[..., None], 1e3, pair.answer.sampled.advantages)
    other = replace(pair, sides={"answer": replace(pair.answer, sampled=pair.answer.sampled._replace(advantages=louder))})
    for mixing in (PAMA(), PAMA(reading=LeastPerToken()), PAMA(reading=OneScalar())):
        loss = PolicyLoss(objectives=("one", "two"), mixing=mixing)
        first, second = with_statistics(loss, pair), with_statistics(loss, other)
        assert {name: float(value.sum()) for name, value in first.statistics.items()} == {
            name: float(value.sum()) for name, value in second.statistics.items()
        }
        assert torch.equal(slope(loss, first), slope(loss, second))
        assert not slope(loss, first)[beyond].any()
        assert slope(loss, first)[MASK & ~beyond].any()


def test_negative_advantages_lose_their_gradient_below_the_clip() -> None:
    loss = PolicyLoss(objectives=("one", "two"), mixing=PAMA(clamp=KeepSigns()))
    pair = make_pair(-drawn(2).abs(), drift=0.5)
    ratio = (pair.answer.logp.detach() - pair.answer.sampled.old_logp).exp()
    want = torch.where((ratio >= 0.8)[..., None], pair.answer.sampled.advantages, 0.0)[MASK].sum(0)
    torch.testing.assert_close(with_statistics(loss, pair).statistics["pama/sums"], want)


def test_least_per_token_and_one_scalar_by_hand() -> None:
    advantages = drawn(3)
    noon = advantages.clamp(min=0)
    least = with_statistics(loss := PolicyLoss(objectives=("a", "b", "c"), mixing=PAMA(reading=LeastPerToken())), make_pair(advantages))
    assert loss.statistics is None
    torch.testing.assert_close(slope(loss, least), slope(PolicyLoss(), plain(least, torch.where(MASK, noon.amin(-1), torch.nan))))
    shares = [logged(loss, least)[f"pama/c/{name}"] for name in "abc"]
    liked = MASK & (noon.amin(-1) > 0)
    assert shares == pytest.approx([float((noon[liked].argmin(-1) == place).double().mean()) for place in range(3)])
    scalar = replace(loss, mixing=PAMA(reading=OneScalar()))
    pair = with_statistics(scalar, make_pair(advantages))
    s = logged(scalar, pair)["pama/s"]
    assert s > 0
    torch.testing.assert_close(slope(scalar, pair), slope(PolicyLoss(), plain(pair, torch.where(MASK, s, torch.nan).double())))
    mixed = torch.tensor([[-0.2, 0.6], [0.3, 0.1], [-0.5, -0.2]])
    torch.testing.assert_close(project_zero(mixed), torch.tensor([0.0, 0.1, -0.2]))


def test_mixed_signs_weigh_the_losses_not_the_advantages() -> None:
    """The loss is sum_i c_i L_i: where signs differ a clipped token has the gradient of those that the clip leaves."""
    loss = PolicyLoss(objectives=("one", "two"), mixing=PAMA(clamp=KeepSigns()))
    pair = with_statistics(loss, make_pair(drawn(2) + torch.tensor([0.4, -0.4], dtype=torch.float64), drift=0.6))
    weights = find_pareto_point(pair.statistics["pama/sums"] / pair.statistics["pama/count"]).weights
    assert 0 < float(weights[0]) < 1
    want = sum(weight * slope(PolicyLoss(), plain(pair, pair.answer.sampled.advantages[..., place])) for place, weight in enumerate(weights))
    torch.testing.assert_close(slope(loss, pair), want)


def test_weights_of_tokens_count_in_the_means() -> None:
    weight = torch.ones(4, 5, dtype=torch.float64)
    weight[0] = 0.0
    pair = with_statistics(TWO, make_pair(drawn(2), weight=weight))
    assert float(pair.statistics["pama/count"]) == 8
    assert not slope(TWO, pair)[0].any()


def test_the_ratio_to_the_reference_gates_the_means_alone() -> None:
    loss = replace(TWO, mixing=PAMA(ratio=ToReference()))
    pair = with_statistics(loss, make_pair(drawn(2)))
    ratio = (pair.answer.logp.detach() - pair.answer.ref_logp).exp()
    want = torch.where((ratio <= 1.2)[..., None], pair.answer.sampled.advantages.clamp(min=0), 0.0)[MASK].sum(0)
    torch.testing.assert_close(pair.statistics["pama/sums"], want)
    assert "reference" in loss.needs
    assert "reference" not in TWO.needs
    stages = PPO(combination=PAMA(ratio=ToReference()))
    assert GRPO(combination=stages.combination).stages().reads_reference
    assert not GRPO(combination=PAMA()).stages().reads_reference
    with pytest.raises(ValueError, match="ref_logp"):
        with_statistics(loss, replace(pair, sides={"answer": replace(pair.answer, ref_logp=None)}))


def test_moving_mean() -> None:
    """decay 0 is the update alone; otherwise the weighted mean of all updates so far, which can push another reward than the update's own."""
    loss = replace(TWO, mixing=PAMA(average=MovingMean(decay=0.8)))
    now = replace(TWO, mixing=PAMA(average=MovingMean(decay=0.0)))
    state, means = {name: table.double() for name, table in loss.state().items()}, []
    pushed = []
    for seed in range(12):
        pair = with_statistics(loss, make_pair(drawn(2, seed), seed=seed), state)
        means.append(pair.statistics["pama/sums"] / pair.statistics["pama/count"])
        shares = torch.tensor([0.2 * 0.8 ** (seed - past) for past in range(seed + 1)], dtype=torch.float64)
        want = (shares / shares.sum()) @ torch.stack(means)
        found = logged(loss, pair)
        assert found["pama/s"] == pytest.approx(float(want.min()))
        assert found["pama/a/one"] == pytest.approx(float(means[-1][0]))
        pushed.append((found["pama/pushed"], logged(now, with_statistics(now, pair))["pama/pushed"]))
        added = loss.after_step(state, pair)
        state = dict(loss.update_state(state, added))
        assert logged(now, with_statistics(now, pair))["pama/s"] == pytest.approx(float(means[-1].min()))
    assert any(one != other for one, other in pushed)
    empty = {name: torch.zeros_like(value) for name, value in added.items()}
    assert all(torch.equal(table, state[name]) for name, table in loss.update_state(state, empty).items())


def test_without_whitening_the_smallest_scale_wins_and_with_it_scale_is_nothing() -> None:
    rollout = several(2, unjudged=False)
    louder = replace(
        rollout,
        sequence=rollout.sequence * torch.tensor([100.0, 1.0]).double(),
        tokens=rollout.tokens * torch.tensor([100.0, 1.0]).double(),
        values=rollout.values * torch.tensor([100.0, 1.0]).double(),
    )

    def weights(given: object, whitening: WhitenUnbiased | None) -> list[float]:
        found = update_of(given, GAE(), whitening=whitening, combination=PAMA())
        mean = found.advantages.clamp(min=0)[rollout.mask].mean(0)
        return find_pareto_point(mean).weights.tolist()

    assert weights(rollout, None) == [1, 0]
    assert weights(louder, None) == [0, 1]
    assert weights(louder, WhitenUnbiased()) == weights(rollout, WhitenUnbiased())


def test_garbage_outside_the_mask_changes_nothing() -> None:
    for mixing in (PAMA(), PAMA(reading=LeastPerToken()), PAMA(reading=OneScalar(), clamp=KeepSigns())):
        loss = PolicyLoss(objectives=("one", "two"), mixing=mixing)
        pair = make_pair(drawn(2))
        sampled = pair.answer.sampled
        junk = sampled._replace(advantages=torch.where(MASK[..., None], sampled.advantages, 1e30))
        other = replace(pair, sides={"answer": replace(pair.answer, sampled=junk)})
        assert torch.equal(slope(loss, with_statistics(loss, pair)), slope(loss, with_statistics(loss, other)))
        assert logged(loss, with_statistics(loss, pair)) == logged(loss, with_statistics(loss, other))


def test_one_update_of_a_buffer_takes_no_further_pass() -> None:
    contract = contract_of(replace(TWO, single=True))
    assert contract.statistics is None
    assert contract.column_statistics is not None
    pair = with_statistics(replace(TWO, single=True), make_pair(drawn(2), drift=3.0))
    torch.testing.assert_close(pair.statistics["pama/sums"], pair.answer.sampled.advantages.clamp(min=0)[MASK].sum(0))
    assert contract_of(TWO).statistics is not None
    assert contract_of(TWO).state == {}
    assert set(contract_of(replace(TWO, mixing=PAMA(average=MovingMean()))).state) == {"pama/sums", "pama/count"}
    assert contract_of(replace(TWO, mixing=PAMA(reading=LeastPerToken()))).statistics is None


def test_settings_that_mean_nothing_together_are_refused() -> None:
    for surrogate in (Cispo(), SequenceRatio()):
        with pytest.raises(UsageError, match=r"algorithm\.surrogate:clip"):
            PPO(combination=PAMA(), surrogate=surrogate).stages()
        with pytest.raises(UsageError, match=r"algorithm\.surrogate:clip"):
            PolicyLoss(mixing=PAMA(), surrogate=surrogate)
    assert PPO(combination=MGDA(), surrogate=Cispo()).stages()
    with pytest.raises(ValueError, match="advantage of each reward"):
        total(TWO, replace(plain(make_pair(drawn(2)), drawn(1)[..., 0]), statistics={"pama/sums": torch.ones(2), "pama/count": torch.ones(())}))


def test_a_mixture_of_one_is_its_loss() -> None:
    advantage = drawn(1)
    pair = make_pair(advantage)
    side = pair.answer
    found = LossMixture(torch.ones(1, dtype=torch.float64), side.sampled.advantages).token_loss(
        PolicyLoss().surrogate, side.logp, side.sampled.old_logp, MASK
    )
    want = PolicyLoss().surrogate(side.logp, side.sampled.old_logp, side.sampled.advantage, MASK)
    assert torch.equal(found.loss[MASK], want.loss[MASK])
    assert torch.equal(found.high[MASK], want.high[MASK])
