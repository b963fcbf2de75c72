"""What must hold of every advantage with everything around it. A law takes (rollout) -> Update and raises AssertionError."""

from collections.abc import Callable
from dataclasses import replace

import torch

from finegrain.online.rollout import Rollout
from finegrain.online.stages import Update
from finegrain.ops.readout import last_place
from tests.online.rollouts import make_rollout, spoiled, taken, widened

Compute = Callable[[Rollout], Update]
Law = Callable[[Compute], None]
EXACT = {"rtol": 0.0, "atol": 0.0}
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def same(got: Update, want: Update, **tolerance: float) -> None:
    torch.testing.assert_close(got.advantage, want.advantage, **tolerance)
    for mine, theirs in ((got.returns, want.returns), (got.weight, want.weight)):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, **tolerance)
    assert got.state == want.state
    assert got.facts.keys() == want.facts.keys()
    for name in want.facts:
        assert abs(got.facts[name] - want.facts[name]) < 1e-9, name


def nothing_under_the_mask(compute: Compute) -> None:
    """NaN, infinity and huge numbers outside the mask change nothing, to the bit, and nothing stands there."""
    rollout = make_rollout()
    want = compute(rollout)
    assert not want.advantage[~rollout.mask].any()
    assert want.advantage.isfinite().all()
    for junk in (float("nan"), float("inf"), 1e300):
        same(compute(spoiled(rollout, junk)), want, **EXACT)


def padding(compute: Compute) -> None:
    rollout = make_rollout()
    want = compute(rollout)
    for left, right in ((0, 2), (3, 0)):
        got = compute(widened(rollout, left, right))
        own = slice(left, left + rollout.mask.shape[1])
        assert not torch.cat([got.advantage[:, :left], got.advantage[:, own.stop :]], 1).any()
        cut = lambda values, own=own: None if values is None else values[:, own]
        same(got._replace(advantage=got.advantage[:, own], returns=cut(got.returns), weight=cut(got.weight)), want, **CLOSE)


def permutation(compute: Compute) -> None:
    rollout, order = make_rollout(), torch.tensor([2, 0, 3, 1, 8, 6, 7, 5, 4])
    want, got = compute(rollout), compute(taken(rollout, order))
    move = lambda values: None if values is None else values[order]
    same(got, want._replace(advantage=want.advantage[order], returns=move(want.returns), weight=move(want.weight)), **CLOSE)


def dense_at_the_end_is_the_scalar(compute: Compute) -> None:
    """A token reward that is 0 but at the last token gives the advantages of the answer's reward, to the bit."""
    rollout = make_rollout(unjudged=False)
    end = last_place(rollout.mask)[..., None]
    tokens = torch.where(end, rollout.sequence[:, None], 0.0)
    same(compute(replace(rollout, tokens=tokens, sequence=torch.zeros_like(rollout.sequence))), compute(rollout), **EXACT)


def unjudged_answers(compute: Compute) -> None:
    """An answer that nobody judged has advantage 0, and whatever its tokens are, the others do not notice."""
    rollout = make_rollout()
    want = compute(rollout)
    assert not want.advantage[1].any()
    assert want.facts["unjudged"] == 1
    other = rollout.values.clone()
    other[1] = 50.0
    torch.testing.assert_close(compute(replace(rollout, values=other)).advantage, want.advantage, **EXACT)
    others = torch.arange(len(rollout.mask)) != 1
    alone = compute(taken(rollout, others.nonzero()[:, 0]))
    torch.testing.assert_close(alone.advantage, want.advantage[others], **CLOSE)


LAWS: tuple[Law, ...] = (nothing_under_the_mask, padding, permutation, dense_at_the_end_is_the_scalar, unjudged_answers)
