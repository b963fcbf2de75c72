"""All stages together (online/stages.py, facts.py): laws of every advantage, each seen to fail; density; shaping; numbers that are logged."""

import itertools
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.online.combine import NormaliseThenSum
from finegrain.online.facts import advantage_density, explained_variance
from finegrain.online.gae import GAE, Returns, RunThrough, gae
from finegrain.online.groups import Centred, GreedyBaseline, GroupMean, GroupNorm, LeashToGo, LeaveOneOut, LengthWeighted
from finegrain.online.leash import K3, AdaptiveBeta, InLoss, InReward
from finegrain.online.macro import MacroGAE, Perplexity, RandomNGram
from finegrain.online.policy_loss import BETA
from finegrain.online.rollout import Rollout
from finegrain.online.stages import Advantage, Stages, Update, compute_update
from finegrain.online.token_rewards import Estimate, TokenRewards
from finegrain.online.transforms import MaskTruncated, Transforms
from finegrain.online.whiten import CentreTokens, WhitenBiased, WhitenUnbiased
from finegrain.ops.masked import masked_sum
from tests.online.rollouts import make_rollout, scalars, update_of
from tests.online.stage_laws import LAWS, Law, dense_at_the_end_is_the_scalar, nothing_under_the_mask, padding, permutation, unjudged_answers

FEWEST_LAWS, FEWEST_ADVANTAGES = 5, 14
ADVANTAGES: dict[str, Advantage] = {
    "gae": GAE(),
    "gae-run-through": GAE(gamma=0.9, lam=0.5, holes=RunThrough()),
    "returns": Returns(gamma=0.9),
    "rloo": LeaveOneOut(),
    "rloo-openrlhf": LeaveOneOut(tokens=LeashToGo()),
    "grpo": GroupNorm(),
    "grpo-centred": GroupNorm(tokens=Centred()),
    "dr-grpo": GroupMean(),
    "opo": LengthWeighted(),
    "remax": GreedyBaseline(),
    "macro": MacroGAE(),
    "macro-random": MacroGAE(termination=RandomNGram()),
    "macro-perplexity": MacroGAE(termination=Perplexity()),
    "macro-centred-opo": LengthWeighted(tokens=Centred(alpha=0.3)),
}
WHITENINGS = (None, WhitenUnbiased(), WhitenBiased(), CentreTokens())
LEASHES = (None, InReward(), InReward(estimator=K3(), control=AdaptiveBeta()))


def test_collected() -> None:
    print(f"{len(LAWS)} laws of {len(ADVANTAGES)} advantages")
    assert len(LAWS) >= FEWEST_LAWS
    assert len(ADVANTAGES) >= FEWEST_ADVANTAGES


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", ADVANTAGES)
def test_law(name: str, law: Law) -> None:
    place = list(ADVANTAGES).index(name)
    leash, whitening = LEASHES[place % len(LEASHES)], WHITENINGS[place % len(WHITENINGS)]

    def compute(rollout: Rollout) -> Update:
        return update_of(rollout, ADVANTAGES[name], leash, whitening, greedy=torch.full((len(rollout.mask),), 0.3, dtype=torch.float64))

    law(compute)


def with_estimate(change: object) -> object:
    """Stages whose advantage is a broken one; the union is not asked."""

    def compute(rollout: Rollout) -> Update:
        stages = Stages(advantage=GroupMean())
        object.__setattr__(stages, "advantage", change)
        return compute_update(rollout, stages, stages.start())

    return compute


@dataclass(frozen=True)
class Broken:
    kind: str
    erases_density: bool = False
    reads_values: bool = False

    def __call__(self, rewards: TokenRewards) -> Estimate:
        mask, total = rewards.mask, rewards.total
        own = total.sum(1)
        if self.kind == "averages over padding":
            return Estimate(torch.where(mask, (own - rewards.rollout.old_logp.mean())[:, None], 0.0), None)
        if self.kind == "reads columns":
            return Estimate(torch.where(mask, own[:, None] * torch.arange(mask.shape[1]), 0.0), None)
        if self.kind == "compares neighbours":
            return Estimate(torch.where(mask, (own - own.roll(1))[:, None], 0.0), None)
        if self.kind == "knows where a reward came from":
            return Estimate(torch.where(mask, rewards.rollout.sequence.nan_to_num(0.0), 0.0), None)
        return Estimate(torch.where(mask, (own - own.mean())[:, None], 0.0), None)


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        ("averages over padding", nothing_under_the_mask),
        ("reads columns", padding),
        ("compares neighbours", permutation),
        ("knows where a reward came from", dense_at_the_end_is_the_scalar),
        ("counts answers that nobody judged", unjudged_answers),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_broken_advantage_breaks_its_law(kind: str, law: Law) -> None:
    with pytest.raises(AssertionError):
        law(with_estimate(Broken(kind)))  # type: ignore[arg-type]


def test_a_dense_reward_keeps_its_density_and_a_whole_answer_erases_it() -> None:
    rollout = make_rollout(dense=True)
    assert update_of(rollout, GAE()).facts["advantage/density"] > 0.3
    assert update_of(rollout, LeaveOneOut(tokens=Centred())).facts["advantage/density"] > 0.1
    erased = update_of(rollout, LeaveOneOut())
    assert erased.facts["advantage/density"] < 1e-20
    assert len(erased.warnings) == 1
    assert "lost" in erased.warnings[0]
    assert update_of(rollout, GAE()).warnings == ()
    assert update_of(make_rollout(), LeaveOneOut()).warnings == ()


@pytest.mark.parametrize("advantage", [LeaveOneOut(tokens=LeashToGo()), GreedyBaseline()])
def test_the_pairing_that_collapses_is_refused(advantage: Advantage) -> None:
    with pytest.raises(UsageError, match="collapses"):
        Stages(advantage=advantage).check_density(True)
    with pytest.raises(UsageError, match="collapses"):
        update_of(make_rollout(dense=True), advantage, greedy=torch.zeros(9, dtype=torch.float64))
    assert Stages(advantage=advantage).check_density(False) == []


def test_density_by_hand() -> None:
    mask = torch.tensor([[True, True], [True, True], [True, False]])
    assert advantage_density(torch.tensor([[1.0, 1.0], [-1.0, -1.0], [3.0, 9.0]]), mask) == 0
    assert advantage_density(torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.0, 9.0]]), mask) == 1
    assert advantage_density(torch.tensor([[2.0, 0.0], [0.0, -2.0], [0.0, torch.nan]]), mask) == pytest.approx(0.5)
    assert advantage_density(torch.zeros(3, 2), mask) == 0


def test_explained_variance() -> None:
    mask, returns = torch.tensor([[True, True, False]]), torch.tensor([[1.0, 3.0, torch.nan]])
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(torch.tensor([[2.0, 2.0, 0.0]]), returns, mask) == 0


def test_facts_of_a_buffer() -> None:
    rollout = make_rollout()
    found = update_of(rollout, GAE(), InReward(beta=0.07), WhitenUnbiased())
    judged = rollout.judged
    assert found.facts["reward"] == pytest.approx(float(rollout.sequence[judged].mean()))
    assert found.facts["rewards/0/std"] == pytest.approx(float(rollout.sequence[judged].std()))
    assert found.facts["reward_std"] == pytest.approx(float(rollout.sequence[judged, 0].std()))
    assert found.facts["beta"] == 0.07
    ratio = (rollout.old_logp - rollout.ref_logp)[rollout.mask]
    assert found.facts["kl"] == pytest.approx(float(((-ratio).exp() - 1 + ratio).mean()))
    assert found.facts["entropy"] == pytest.approx(float(rollout.entropy[rollout.mask].mean()))
    assert found.facts["completions/clipped_ratio"] == pytest.approx(2 / 9)
    assert found.facts["completions/stop_ratio"] == pytest.approx(2 / 9)
    assert (found.facts["completions/min_length"], found.facts["completions/max_length"]) == (1, 7)
    assert found.facts["completions/mean_length"] == pytest.approx(39 / 9)
    assert found.facts["completions/mean_terminated_length"] == pytest.approx(25 / 7)
    assert found.facts["advantage/std"] == pytest.approx(1)
    assert found.facts["frac_reward_zero_std"] == 0
    assert update_of(scalars([1, 1, 1]), GroupMean()).facts["frac_reward_zero_std"] == 1


def test_a_buffer_in_which_nobody_judged_anything() -> None:
    rollout = replace(make_rollout(), sequence=torch.full((9, 1), torch.nan, dtype=torch.float64))
    for advantage in (GAE(), GroupNorm(), Returns(), MacroGAE()):
        found = update_of(rollout, advantage, InReward(), WhitenUnbiased())
        assert not found.advantage.any()
        assert found.facts["unjudged"] == 9
        assert "reward" not in found.facts


def test_who_trains() -> None:
    rollout = make_rollout()
    assert update_of(rollout, GroupNorm()).weight is None
    assert update_of(rollout, GAE()).weight[1].eq(0).all()
    cut = update_of(rollout, GroupNorm(), transforms=Transforms(truncated=MaskTruncated()))
    assert cut.weight.any(1).tolist() == [False, True, True, True, True, True, True, False, True]
    assert not cut.advantage[[0, 7]].any()
    torch.testing.assert_close(cut.advantage[2], update_of(rollout, GroupNorm()).advantage[2])


def test_an_adaptive_leash_goes_on_from_buffer_to_buffer() -> None:
    rollout, stages = make_rollout(), Stages(leash=InLoss(beta=0.1, control=AdaptiveBeta(target=1e-6, horizon=90)), advantage=GroupNorm())
    first = compute_update(rollout, stages, stages.start())
    assert first.state.beta == pytest.approx(0.1 * 1.02)
    assert first.columns[BETA].tolist() == [0.1] * 9
    assert compute_update(rollout, stages, first.state).columns[BETA][0] == pytest.approx(0.102)
    assert compute_update(rollout, Stages(leash=InLoss(), advantage=GroupNorm()), stages.start()).columns == {}


def test_stages_that_undo_one_another_are_refused() -> None:
    with pytest.raises(UsageError, match="group-mean"):
        Stages(combination=NormaliseThenSum(), advantage=GroupNorm())
    with pytest.raises(UsageError, match="reference"):
        update_of(replace(make_rollout(), ref_logp=None), GroupNorm(), InReward())
    with pytest.raises(UsageError, match="critic"):
        update_of(replace(make_rollout(), values=None), GAE())
    with pytest.raises(UsageError, match="2 values"):
        update_of(replace(make_rollout(), values=torch.zeros(9, 7, 2)), GAE())


def test_shaping_by_a_potential_leaves_the_advantage() -> None:
    """r + Phi(next) - Phi(here), Phi 0 behind the end: returns fall by Phi, so that a value that follows leaves every advantage (gamma 1)."""
    rollout = make_rollout(dense=True, unjudged=False)
    potential = torch.where(rollout.mask, torch.randn(rollout.mask.shape, dtype=torch.float64), 0.0)
    following = torch.zeros_like(potential)
    for row, own in enumerate(rollout.mask):
        places = own.nonzero()[:, 0]
        following[row, places[:-1]] = potential[row, places[1:]]
    shaped = replace(
        rollout,
        tokens=rollout.tokens + torch.where(rollout.mask, following - potential, 0.0)[..., None],
        values=rollout.values - potential[..., None],
    )
    for advantage in (GAE(), GAE(lam=1.0), GAE(lam=0.0)):
        torch.testing.assert_close(update_of(shaped, advantage).advantage, update_of(rollout, advantage).advantage, rtol=1e-10, atol=1e-10)
    want = update_of(rollout, Returns()).advantage - potential
    torch.testing.assert_close(update_of(shaped, Returns()).advantage, want, rtol=1e-10, atol=1e-10)
    unfollowed = update_of(replace(shaped, values=rollout.values), GAE(lam=1.0)).advantage
    torch.testing.assert_close(unfollowed, update_of(rollout, GAE(lam=1.0)).advantage - potential, rtol=1e-10, atol=1e-10)


def expected_gradient(logits: Tensor, reward: Tensor, shaping: Tensor | None) -> Tensor:
    """Exact policy gradient of reward to go over all answers of two places and three tokens; `shaping`: potential after the first token."""
    answers = torch.tensor(list(itertools.product(range(3), repeat=2)))
    logp = torch.stack([logits[0].log_softmax(-1)[answers[:, 0]], logits[1 + answers[:, 0]].log_softmax(-1).gather(1, answers[:, 1:])[:, 0]], 1)
    tokens = torch.stack([torch.zeros(9, dtype=torch.float64), reward[answers[:, 0], answers[:, 1]]], 1)
    if shaping is not None:
        step = shaping[answers[:, 0]]
        tokens = tokens + torch.stack([step, -step], 1)
    to_go = gae(tokens, torch.zeros_like(tokens), torch.ones(9, 2, dtype=torch.bool), gamma=1.0, lam=1.0).advantages
    chance = logp.sum(1).exp().detach()
    return torch.autograd.grad((chance[:, None] * to_go * logp).sum(), logits)[0]


def test_shaping_leaves_the_optimum_of_a_tabular_problem() -> None:
    """The expected gradient is the same, to rounding, so that the same policies are optimal; a bonus that is no potential moves it."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    reward, shaping = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 3), (3,)))
    plain, shaped = expected_gradient(logits, reward, None), expected_gradient(logits, reward, shaping)
    torch.testing.assert_close(shaped, plain, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(expected_gradient(logits, reward + shaping[:, None], None), plain, atol=1e-3)
    with torch.no_grad():
        best = logits.clone()
    best.requires_grad_()
    for _ in range(400):
        best = (best + 1.0 * expected_gradient(best, reward, shaping)).detach().requires_grad_()
    first = best[0].softmax(-1)
    second = best[1 + int(first.argmax())].softmax(-1)
    assert reward[int(first.argmax()), int(second.argmax())] == reward.max()


def test_the_leash_lowers_what_it_should() -> None:
    rollout = make_rollout(unjudged=False)
    found = update_of(rollout, Returns(), InReward(beta=0.5)).rewards
    torch.testing.assert_close(found.penalty, torch.where(rollout.mask, -0.5 * (rollout.old_logp - rollout.ref_logp), 0.0))
    torch.testing.assert_close(masked_sum(found.score, rollout.mask), rollout.sequence[:, 0])
