"""Macro actions: worked numbers, macros of one token, where macros end, shares of their tokens."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.online.gae import GAE
from finegrain.online.leash import InReward
from finegrain.online.macro import (
    EqualShares,
    GivenSegments,
    MacroGAE,
    MacroSum,
    PositionShares,
    Termination,
    Windows,
    cut_macros,
    estimate_macros,
    separate_closing,
)
from finegrain.online.policy_loss import PolicyLoss, SharedCritic
from finegrain.ops.segments import segment_ends, segment_sum
from finegrain.ops.text_segmenters import BeforeRise, Perplexity, RandomNGram
from finegrain.types import Pair, SampledTokens, Side
from tests.online.rollouts import make_rollout, scalars, update_of

REWARDS = torch.tensor([[-0.01, 0.02, -0.03, 0.01, 0.0, 1.0]], dtype=torch.float64)
VALUES = torch.tensor([[0.1, 0.2, 0.3, 0.2, 0.4, 0.5]], dtype=torch.float64)
TERMINATIONS: tuple[Termination, ...] = (Windows(size=1), Windows(size=3), Windows(size=99), RandomNGram(), Perplexity(), GivenSegments())


def close(got: Tensor, want: list[float]) -> None:
    torch.testing.assert_close(got, torch.tensor([want], dtype=torch.float64), rtol=0, atol=1e-5)


def test_worked() -> None:
    ids = cut_macros(Windows(size=2), scalars([0.0], [6]))
    assert ids.tolist() == [[0, 0, 1, 1, 2, 3]]
    found = estimate_macros(MacroGAE(), REWARDS, VALUES, ids)
    close(found.rewards, [0.005, -0.01, 0, 1])
    close(found.values, [0.15, 0.25, 0.4, 0.5])
    close(found.advantages, [0.75694, 0.68625, 0.575, 0.5])
    close(estimate_macros(MacroGAE(reward=MacroSum()), REWARDS, VALUES, ids).rewards, [0.01, -0.02, 0, 1])
    close(estimate_macros(MacroGAE(reward=MacroSum(), gamma=0.5), REWARDS, VALUES, ids).rewards, [0, -0.025, 0, 1])
    every = estimate_macros(MacroGAE(lam=1.0), REWARDS, VALUES, ids)
    close(every.advantages, [0.995 - 0.15, 0.99 - 0.25, 1 - 0.4, 1 - 0.5])


@pytest.mark.parametrize("macro", [MacroGAE(), MacroGAE(shares=PositionShares()), MacroGAE(reward=MacroSum())])
def test_macros_of_one_token_are_the_estimate_over_tokens(macro: MacroGAE) -> None:
    """Advantages, returns, both losses and their gradients, to 1e-12; also where the authors' code has an empty macro."""
    rollout = make_rollout(dense=True)
    found, want = (
        update_of(rollout, one, InReward()) for one in (replace(macro, termination=Windows(size=1), gamma=0.9, lam=0.7), GAE(gamma=0.9, lam=0.7))
    )
    torch.testing.assert_close(found.advantage, want.advantage, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.returns, want.returns, rtol=0, atol=1e-12)
    slopes = []
    for update in (found, want):
        logp, values = (rollout.old_logp + 0.1).requires_grad_(), (rollout.values + 0.1).requires_grad_()
        sampled = SampledTokens(rollout.old_logp, update.advantage, update.returns, rollout.values)
        terms = PolicyLoss(critic=SharedCritic())(Pair(sides={"answer": Side(logp=logp, mask=rollout.mask, values=values, sampled=sampled)}))
        slopes.append(torch.autograd.grad(sum(term.value.sum() for term in terms.values()), [logp, values]))
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("termination", TERMINATIONS, ids=repr)
def test_every_token_is_in_one_macro_and_the_last_alone(termination: Termination) -> None:
    rollout = make_rollout()
    rollout = replace(rollout, segment=torch.where(rollout.mask, torch.arange(7) // 2, -1))
    ids = cut_macros(termination, rollout)
    assert ((ids >= 0) == rollout.mask).all()
    for row, own in zip(ids, rollout.mask, strict=True):
        numbers = row[own].tolist()
        assert numbers == sorted(numbers)
        assert set(numbers) == set(range(max(numbers) + 1))
        assert numbers.count(numbers[-1]) == 1
    one = torch.where(ids >= 0, 1.0, 0.0)
    assert segment_sum(one, ids)[segment_ends(ids)].sum() == rollout.mask.sum()
    for shares in (EqualShares(), PositionShares()):
        torch.testing.assert_close(segment_sum(shares(ids, torch.float64), ids)[rollout.mask], torch.ones(int(rollout.mask.sum())).double())


def test_more_tokens_than_the_answer_has_make_two_macros() -> None:
    rollout = make_rollout()
    counts = cut_macros(Windows(size=99), rollout).amax(1) + 1
    holes = torch.tensor([0, 0, 2, 0, 0, 0, 0, 0, 0])  # tokens of others close a run
    assert counts.tolist() == (torch.where(rollout.lengths > 1, 2, 1) + holes).tolist()


def test_terminations_by_hand() -> None:
    rollout = replace(scalars([0.0], [6]), ref_logp=-torch.tensor([[3.0, 1.0, 2.0, 2.0, 5.0, 4.0]], dtype=torch.float64))
    assert cut_macros(Perplexity(), rollout).tolist() == [[0, 0, 1, 1, 2, 3]]
    assert cut_macros(Perplexity(start=BeforeRise()), rollout).tolist() == [[0, 1, 1, 2, 2, 3]]
    given = replace(rollout, segment=torch.tensor([[-1, 4, 4, -1, 7, 7]]))
    assert cut_macros(GivenSegments(), given).tolist() == [[0, 1, 1, 1, 2, 3]]


def test_the_same_tokens_are_cut_alike_whoever_is_beside_them() -> None:
    rollout = replace(make_rollout(), mask=torch.ones(9, 7, dtype=torch.bool))
    want = cut_macros(RandomNGram(repeats=1), rollout)
    alone = replace(rollout, ids=rollout.ids.flip(0))
    assert torch.equal(cut_macros(RandomNGram(repeats=1), alone), want.flip(0))
    assert len({tuple(row) for row in want.tolist()}) > 2


@pytest.mark.parametrize("termination", [RandomNGram(), Perplexity(), GivenSegments()], ids=repr)
def test_what_a_termination_lacks_is_said(termination: Termination) -> None:
    with pytest.raises(UsageError, match="termination:"):
        cut_macros(termination, scalars([0.0], [6]))


def test_the_advantage_is_constant_within_a_macro_and_so_is_the_gradient() -> None:
    rollout = make_rollout(unjudged=False)
    update = update_of(rollout, MacroGAE(termination=Windows(size=3)))
    ids = cut_macros(Windows(size=3), rollout)
    for row in range(9):
        for macro in range(int(ids[row].max()) + 1):
            assert len(update.advantage[row][ids[row] == macro].unique()) == 1
    logp = rollout.old_logp.clone().requires_grad_()
    (term,) = PolicyLoss()(
        Pair(sides={"answer": Side(logp=logp, mask=rollout.mask, sampled=SampledTokens(rollout.old_logp, update.advantage))})
    ).values()
    (slope,) = torch.autograd.grad(term.value.sum() / term.count.sum(), logp)
    torch.testing.assert_close(slope, -update.advantage / rollout.mask.sum())


def test_one_value_per_macro_is_its_value() -> None:
    ids = separate_closing(torch.tensor([[0, 0, 0, 1, 1, 1, -1]]), torch.tensor([[True] * 6 + [False]]))
    assert ids.tolist() == [[0, 0, 0, 1, 1, 2, -1]]
    constant = torch.tensor([[0.2, 0.2, 0.2, 0.5, 0.5, -1.0, torch.nan]], dtype=torch.float64)
    for shares in (EqualShares(), PositionShares()):
        found = estimate_macros(MacroGAE(shares=shares), torch.zeros_like(constant), constant, ids)
        torch.testing.assert_close(found.values, torch.tensor([[0.2, 0.5, -1.0]], dtype=torch.float64))
