"""tdpo2: worked number, its limits, the gradient that it stops, and that it holds the rejected answers' KL below that of dpo at equal margin."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from finegrain.objectives.dpo import DPO
from finegrain.objectives.tdpo1 import TDPO1
from finegrain.objectives.tdpo2 import TDPO2
from finegrain.ops.sequence import sequence_kl
from finegrain.types import Pair
from tests.objectives.token_kl import given_pair, logit_pair, side_of_logits
from tests.objectives.worked import close


def test_worked_pair() -> None:
    close(TDPO2(beta=0.1, alpha=0.5)(given_pair(1.5, 0.3, 0.8)), 0.632599035)


def test_alpha_0_is_dpo() -> None:
    pair, policy, _ = logit_pair(1)
    losses, plain = TDPO2(alpha=0.0)(pair), DPO()(pair)
    torch.testing.assert_close(losses, plain, rtol=0, atol=1e-12)
    slopes, wanted = (torch.autograd.grad(loss.sum(), list(policy.values()), retain_graph=True) for loss in (losses, plain))
    for slope, want in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(slope, want, rtol=0, atol=1e-12)


def test_alpha_1_has_the_value_of_tdpo1_and_another_gradient() -> None:
    pair, policy, _ = logit_pair(1)
    first, second = TDPO1()(pair), TDPO2(alpha=1.0)(pair)
    torch.testing.assert_close(second, first, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(loss.sum(), list(policy.values()), retain_graph=True) for loss in (second, first))
    assert (ours[0] - theirs[0]).abs().max() > 1e-3, "of the chosen answers"
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=1e-12)


def test_at_the_reference_it_is_dpo_in_value_and_gradient() -> None:
    pair, policy, _ = logit_pair(at_reference=True)
    losses = TDPO2()(pair)
    close(losses, *[math.log(2)] * 4, tolerance=1e-12)
    slopes, wanted = (torch.autograd.grad(loss.sum(), list(policy.values()), retain_graph=True) for loss in (losses, DPO()(pair)))
    for slope, want in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(slope, want, rtol=0, atol=1e-12)


def test_of_the_chosen_answer_only_the_taken_tokens_respond() -> None:
    """Its logits move as under a plain log-probability of weight beta sigma(-beta z): onehot - p, and nothing of its KL."""
    pair, policy, _ = logit_pair(1)
    objective = TDPO2(beta=0.3, alpha=0.7)
    losses = objective(pair)
    (slope,) = torch.autograd.grad(losses.sum(), policy["chosen"], retain_graph=True)
    push = -0.3 * -torch.expm1(-losses.detach())  # sigma(-beta z) = 1 - e^-loss
    (taken,) = torch.autograd.grad(torch.where(pair.chosen.mask, pair.chosen.logp, 0.0).sum(), policy["chosen"], retain_graph=True)
    torch.testing.assert_close(slope, push[:, None, None] * taken, rtol=0, atol=1e-12)
    kl = pair.rejected.reference_kl
    assert kl is not None
    (held,) = torch.autograd.grad(losses.sum(), kl)
    torch.testing.assert_close(held, torch.where(pair.rejected.mask, -0.7 * push[:, None], 0.0), rtol=0, atol=1e-12)


def test_it_logs_the_margin_of_its_loss_and_rewards_without_alpha() -> None:
    found = TDPO2(beta=0.1, alpha=0.5).measures(given_pair(1.5, 0.3, 0.8))
    wanted = {"score/margins": 0.125, "score/accuracies": 1.0, "score/chosen": 0.18, "score/rejected": 0.08, "kl/chosen": 0.3, "kl/rejected": 0.8}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        close(found[name].value / found[name].count, value)


def kl_along_margins(objective: Any, seed: int, steps: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Mean log-ratio margin and mean KL of the rejected answers before every step of a bigram model on 24 planted pairs."""
    generator = torch.Generator().manual_seed(seed)
    words, pairs, length = 12, 24, 8
    reference = torch.randn(words, words, generator=generator)
    quality = torch.randn(words, generator=generator)
    tokens = torch.multinomial(torch.ones(2 * pairs, words), length + 1, replacement=True, generator=generator)
    good = quality[tokens[:, 1:]].sum(-1).view(2, pairs)
    better = torch.where(good[0] > good[1], 0, 1)
    rows = {"chosen": better * pairs + torch.arange(pairs), "rejected": (1 - better) * pairs + torch.arange(pairs)}
    policy = reference.clone().requires_grad_()
    optimizer = torch.optim.Adam([policy], lr=0.03)
    margins, divergences = [], []
    for _ in range(steps):
        sides = {}
        for role, own in rows.items():
            before, taken = tokens[own, :-1], tokens[own, 1:]
            sides[role] = side_of_logits(policy[before], reference[before], taken, torch.ones_like(taken, dtype=torch.bool))
        pair = Pair(sides=sides)
        ratios = [(side.logp - side.ref_logp).sum(-1).mean().item() for side in sides.values() if side.ref_logp is not None]
        margins.append(ratios[0] - ratios[1])
        divergences.append(sequence_kl(pair.rejected).mean().item())
        optimizer.zero_grad()
        objective(pair).mean().backward()
        optimizer.step()
    return np.array(margins), np.array(divergences)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_the_rejected_side_keeps_a_smaller_kl_than_under_dpo_at_equal_margin(seed: int) -> None:
    plain, half, whole = (kl_along_margins(objective, seed) for objective in (DPO(), TDPO2(alpha=0.5), TDPO2(alpha=1.0)))
    reached = min(path[0].max() for path in (plain, half, whole))
    for margin in (0.5 * reached, 0.9 * reached):
        at = [float(np.interp(margin, *path)) for path in (plain, half, whole)]
        assert at[2] < at[1] < at[0], f"seed {seed}, margin {margin:.1f}: {at}"
    assert at[1] < 0.9 * at[0], at
