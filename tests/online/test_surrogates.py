"""Losses of tokens by their ratio: worked numbers, clips, sequence ratios with advantages of answers and of tokens."""

import math

import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.online.surrogates import Cispo, Clip, PlainRatio, SequenceClip, SequenceRatio, StraightThrough, Surrogate

SURROGATES: tuple[Surrogate, ...] = (
    Clip(),
    Clip(dual=3.0, largest=4.0),
    SequenceRatio(),
    SequenceRatio(gradient=PlainRatio()),
    SequenceClip(),
    Cispo(largest=1.2),
)
LENGTHS = torch.tensor([5, 3, 1])
MASK = torch.arange(5) < LENGTHS[:, None]


def draw(seed: int = 0, drift: float = 0.4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    old, moved, advantage = torch.randn(3, 3, 5, generator=generator, dtype=torch.float64)
    return (old + drift * moved).requires_grad_(), old, advantage


def slope(loss: Tensor, logp: Tensor) -> Tensor:
    return torch.autograd.grad(torch.where(MASK, loss, 0.0).sum(), logp)[0]


def single(surrogate: Surrogate, ratio: float, advantage: float) -> tuple[float, float]:
    """Loss of one token and its gradient."""
    one = torch.ones(1, 1, dtype=torch.float64)
    logp = (one * math.log(ratio)).requires_grad_()
    found = surrogate(logp, 0 * one, advantage * one, one.bool()).loss
    return float(found.detach()), float(torch.autograd.grad(found.sum(), logp)[0])


@pytest.mark.parametrize(
    ("surrogate", "ratio", "advantage", "loss", "gradient"),
    [
        (Clip(), 1.5, 1.0, -1.2, 0.0),
        (Clip(), 0.5, -1.0, 0.8, 0.0),
        (Clip(), 0.5, 1.0, -0.5, -0.5),
        (Clip(), 5.0, -1.0, 5.0, 5.0),
        (Clip(dual=3.0), 5.0, -1.0, 3.0, 0.0),
        (Clip(dual=3.0), 5.0, 1.0, -1.2, 0.0),
        (Clip(largest=4.0), 5.0, -1.0, 4.0, 0.0),
        (Clip(largest=4.0), 3.0, -1.0, 3.0, 3.0),
        (Clip(high=0.28), 1.25, 1.0, -1.25, -1.25),
        (Cispo(largest=2.0), 1.5, 2.0, -3 * math.log(1.5), -3.0),
        (Cispo(largest=2.0), 5.0, 2.0, -4 * math.log(5.0), -4.0),
        (SequenceClip(), 1.5, 1.0, -1.2, 0.0),
    ],
)
def test_worked(surrogate: Surrogate, ratio: float, advantage: float, loss: float, gradient: float) -> None:
    found = single(surrogate, ratio, advantage)
    assert found == pytest.approx((loss, gradient), abs=1e-12)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_at_the_old_policy_the_ratio_is_1_and_nothing_is_clipped(surrogate: Surrogate) -> None:
    """The gradient is minus the advantage; forms with one ratio per answer give every token what the answer has."""
    _, old, advantage = draw()
    logp = old.clone().requires_grad_()
    found = surrogate(logp, old, advantage, MASK)
    assert found.ratio[MASK].eq(1).all()
    assert not (found.low | found.high | found.dual).any()
    clean = torch.where(MASK, advantage, 0.0)
    want = {
        SequenceClip: clean.sum(1, keepdim=True).expand_as(clean),
        PlainRatio: (clean.sum(1) / LENGTHS)[:, None].expand_as(clean),
    }.get(type(getattr(surrogate, "gradient", surrogate)), clean)
    torch.testing.assert_close(slope(found.loss, logp), torch.where(MASK, -want, 0.0))


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_garbage_under_the_mask(surrogate: Surrogate) -> None:
    clean = draw()
    logp, old, advantage = (torch.where(MASK, value.detach(), torch.nan) for value in clean)
    logp.requires_grad_()
    found, want = surrogate(logp, old, advantage, MASK), surrogate(*clean, MASK)
    assert torch.equal(found.loss[MASK], want.loss[MASK])
    got = slope(found.loss, logp)
    assert torch.equal(got, slope(want.loss, clean[0]))
    assert not got[~MASK].any()


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_what_is_called_clipped_has_no_gradient(surrogate: Surrogate) -> None:
    logp, old, advantage = draw(drift=1.8)
    found = surrogate(logp, old, advantage, MASK)
    clipped = (found.low | found.high | found.dual) & MASK
    assert clipped.any()
    gradient = slope(found.loss, logp)
    assert bool(gradient[clipped].eq(0).all()) == (not isinstance(surrogate, (SequenceClip, Cispo)) and surrogate.keeps_density)


def test_forms_of_the_sequence_ratio() -> None:
    """The same value always, the same gradient of answers with one advantage, another one where tokens have their own."""
    logp, old, advantage = draw(drift=0.05)
    plain, through = (SequenceRatio(low=0.9, high=9.0, gradient=gradient) for gradient in (PlainRatio(), StraightThrough()))
    for own, equal in ((advantage[:, :1].expand(3, 5), True), (advantage, False)):
        first, second = plain(logp, old, own, MASK), through(logp, old, own, MASK)
        torch.testing.assert_close(first.loss[MASK], second.loss[MASK], rtol=1e-12, atol=1e-12)
        got, want = slope(first.loss, logp), slope(second.loss, logp)
        assert torch.allclose(got, want, rtol=1e-12, atol=1e-15) == equal
    ratio = torch.where(MASK, logp - old, 0.0).sum(1).div(LENGTHS).exp()
    torch.testing.assert_close(want, torch.where(MASK, -ratio[:, None] * advantage, 0.0))


def test_the_ratio_of_an_answer_is_that_of_its_probability() -> None:
    logp, old, advantage = draw(drift=0.05)
    found = SequenceClip(low=0.9, high=9.0)(logp, old, advantage, MASK)
    torch.testing.assert_close(found.ratio[:, 0], torch.where(MASK, logp - old, 0.0).sum(1).exp())


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_far_log_ratios_stay_finite(surrogate: Surrogate) -> None:
    old = torch.tensor([[-700.0, 0.0]])
    logp = torch.tensor([[0.0, -700.0]], requires_grad=True)
    found = surrogate(logp, old, torch.tensor([[-1.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)).loss
    assert found.isfinite().all()
    assert torch.autograd.grad(found.sum(), logp)[0].isfinite().all()


def test_bounds_below_the_clip_are_refused() -> None:
    for settings in ({"dual": 0.5}, {"largest": 1.1}):
        with pytest.raises(UsageError, match="above"):
            Clip(**settings)
