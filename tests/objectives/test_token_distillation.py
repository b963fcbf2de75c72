"""token-distillation: numbers by hand, its sequence-level limit, a loop, and what it refuses."""

from dataclasses import replace

import pytest
import torch

from finegrain.objectives.token_distillation import TokenDistillation
from finegrain.ops.sequence import log_ratio
from finegrain.types import Pair, Side
from tests.laws.drive import step_loss
from tests.laws.pairs import make_pair
from tests.objectives.worked import close, random_pair, real


def small_side() -> Side:
    """Log-ratios 2, -1, 3 with rewards 0.5, 0.3, -0.2 and certainties 1, 0.5, 0; one padding token of NaN."""
    return Side(
        logp=real(-1, -3, -2, torch.nan).unsqueeze(0).requires_grad_(),
        ref_logp=real(-3, -2, -5, torch.nan).unsqueeze(0),
        mask=torch.tensor([[True, True, True, False]]),
        reward=real(0.5, 0.3, -0.2, torch.nan).unsqueeze(0),
        weight=real(1, 0.5, 0, torch.nan).unsqueeze(0),
    )


def test_tokens_by_hand() -> None:
    term = TokenDistillation(beta=0.1)(Pair(sides={"answer": small_side()}))["distillation"]
    close(term.value, 1 * (0.2 - 0.5) ** 2 + 0.5 * (-0.1 - 0.3) ** 2, tolerance=1e-12)
    close(term.count, 1.5, tolerance=1e-12)


def test_segments_by_hand() -> None:
    side = replace(small_side(), segment=torch.tensor([[0, 0, 1, -1]]))
    term = TokenDistillation(beta=0.1)(Pair(sides={"answer": side}))["distillation"]
    close(term.value, 0.75 * (0.1 - 0.8) ** 2, tolerance=1e-12)
    close(term.count, 0.75, tolerance=1e-12)


def test_one_segment_per_answer_is_sequence_level_reward_distillation() -> None:
    pair = random_pair(5)
    generator = torch.Generator().manual_seed(1)
    sides = {
        role: replace(
            side,
            weight=None,
            reward=torch.randn(side.logp.shape, generator=generator, dtype=torch.float64),
            segment=torch.where(side.mask, 0, -1),
        )
        for role, side in pair.sides.items()
    }
    got = TokenDistillation(beta=0.3)(Pair(sides=sides))["distillation"]
    want = torch.zeros(5, dtype=torch.float64)
    for side in sides.values():
        assert side.reward is not None
        want = want + (0.3 * log_ratio(side) - torch.where(side.mask, side.reward, 0.0).sum(-1)).square()
    torch.testing.assert_close(got.value, want, rtol=0, atol=1e-12)
    close(got.count, *[2.0] * 5, tolerance=1e-12)


def test_equals_a_loop_over_segments() -> None:
    method = TokenDistillation(beta=0.2)
    pair = make_pair(method, seed=7)
    value = count = 0.0
    for side in pair.sides.values():
        assert side.segment is not None
        assert side.reward is not None
        assert side.ref_logp is not None
        assert side.weight is not None
        for row in range(len(side.logp)):
            for segment in range(int(side.segment[row].max()) + 1):
                members = [t for t in range(side.logp.shape[1]) if side.mask[row, t] and side.segment[row, t] == segment]
                ratio = sum(float(side.logp.detach()[row, t] - side.ref_logp[row, t]) for t in members)
                certainty = sum(float(side.weight[row, t]) for t in members) / len(members)
                value += certainty * (0.2 * ratio - sum(float(side.reward[row, t]) for t in members)) ** 2
                count += certainty
    close(step_loss(method, [pair]).unsqueeze(0), value / count, tolerance=1e-12)


def test_optimum_is_the_reference_tilted_by_the_reward() -> None:
    side = small_side()
    assert side.ref_logp is not None
    assert side.reward is not None
    best = replace(side, logp=side.ref_logp + side.reward / 0.1)
    close(TokenDistillation(beta=0.1)(Pair(sides={"answer": best}))["distillation"].value, 0.0, tolerance=1e-12)


def test_sides_without_rewards_do_not_train_and_none_at_all_is_refused() -> None:
    side = small_side()
    bare = replace(side, reward=None)
    one = TokenDistillation()(Pair(sides={"chosen": side, "rejected": bare}))["distillation"]
    alone = TokenDistillation()(Pair(sides={"chosen": side}))["distillation"]
    assert torch.equal(one.value, alone.value)
    with pytest.raises(ValueError, match="token rewards"):
        TokenDistillation()(Pair(sides={"chosen": bare, "rejected": bare}))


def test_rewards_without_a_reference_are_refused() -> None:
    with pytest.raises(ValueError, match="reference log-probabilities"):
        TokenDistillation()(Pair(sides={"answer": replace(small_side(), ref_logp=None)}))
