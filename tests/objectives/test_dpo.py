"""dpo: worked numbers and identities."""

import math
from dataclasses import replace

import pytest
import torch

from finegrain.objectives.dpo import DPO, dpo_loss
from finegrain.types import Pair, Side
from tests.objectives.worked import MARGIN, close, random_pair, real, scalar_pair, worked_pair


def test_worked_pair() -> None:
    close(DPO()(worked_pair()), 0.620957048)


def test_at_the_reference_the_loss_is_log_2_and_every_response_token_gets_half_beta() -> None:
    pair = random_pair()
    sides = {
        role: replace(side, logp=side.logp.detach().clone().requires_grad_(), ref_logp=side.logp.detach(), weight=None)
        for role, side in pair.sides.items()
    }
    losses = DPO()(Pair(sides=sides))
    close(losses, *[math.log(2)] * 5, tolerance=1e-12)
    chosen, rejected = torch.autograd.grad(losses.sum(), [sides["chosen"].logp, sides["rejected"].logp])
    torch.testing.assert_close(chosen, -0.05 * sides["chosen"].mask.double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(rejected, 0.05 * sides["rejected"].mask.double(), rtol=0, atol=1e-12)


def test_loss_of_margin_minus_loss_of_its_negative_is_linear() -> None:
    margin = real(-3, 0.2, MARGIN)
    torch.testing.assert_close(dpo_loss(margin, beta=0.3) - dpo_loss(-margin, beta=0.3), -0.3 * margin)


def test_swapped_sides_negate_the_margin() -> None:
    pair = random_pair()
    torch.testing.assert_close(DPO(beta=0.2)(pair) - DPO(beta=0.2)(pair.swapped()), -0.2 * margins(pair), rtol=0, atol=1e-12)


def test_a_constant_added_to_policy_and_reference_changes_nothing() -> None:
    pair = random_pair()

    def shifted(side: Side) -> Side:
        assert side.ref_logp is not None
        return replace(side, logp=side.logp + 0.7, ref_logp=side.ref_logp + 0.7)

    moved = replace(pair, sides={role: shifted(side) for role, side in pair.sides.items()})
    torch.testing.assert_close(DPO()(moved), DPO()(pair), rtol=0, atol=1e-12)


def margins(pair: Pair) -> torch.Tensor:
    """Weighted log-ratio margins by a loop over tokens."""
    totals = []
    for row in range(len(pair.chosen.logp)):
        total = 0.0
        for sign, side in ((1, pair.chosen), (-1, pair.rejected)):
            assert side.ref_logp is not None
            assert side.weight is not None
            for t in range(side.logp.shape[1]):
                if side.mask[row, t]:
                    total += sign * float(side.weight[row, t]) * float(side.logp.detach()[row, t] - side.ref_logp[row, t])
        totals.append(total)
    return real(*totals)


def test_equals_a_loop_over_tokens() -> None:
    pair = random_pair(3)
    want = [math.log1p(math.exp(-0.1 * margin)) for margin in margins(pair).tolist()]
    close(DPO()(pair), *want, tolerance=1e-12)


def test_confident_pairs_stay_finite() -> None:
    losses = DPO()(scalar_pair((1e4, -1e4), (0.0, 0.0)))
    close(losses, 0.0, 1e3)


def test_without_reference_it_says_what_to_do() -> None:
    pair = worked_pair()
    bare = replace(pair, sides={role: replace(side, ref_logp=None) for role, side in pair.sides.items()})
    with pytest.raises(ValueError, match="pass a reference"):
        DPO()(bare)
