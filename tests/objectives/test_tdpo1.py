"""tdpo1: worked number, its identities with dpo, what its gradient does to the KL of either answer, and what it logs."""

import math
from dataclasses import replace

import pytest
import torch

from finegrain.objectives.dpo import DPO
from finegrain.objectives.tdpo1 import TDPO1
from finegrain.objectives.token_kl import regret_score
from finegrain.ops.sequence import sequence_kl
from tests.objectives.token_kl import given_pair, logit_pair, side_of_logits
from tests.objectives.worked import close, worked_pair


def test_worked_pair() -> None:
    close(TDPO1(beta=0.1)(given_pair(1.5, 0.3, 0.8)), 0.644396660)


def test_at_the_reference_it_is_dpo_in_value_and_gradient() -> None:
    pair, policy, _ = logit_pair(at_reference=True)
    losses, plain = TDPO1()(pair), DPO()(pair)
    close(losses, *[math.log(2)] * 4, tolerance=1e-12)
    for side in pair.sides.values():
        torch.testing.assert_close(sequence_kl(side), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)
    slopes, wanted = (torch.autograd.grad(loss.sum(), list(policy.values()), retain_graph=True) for loss in (losses, plain))
    for slope, want in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(slope, want, rtol=0, atol=1e-12)
        assert want.abs().max() > 1e-3


def test_kl_is_of_the_reference_against_the_policy_and_never_negative() -> None:
    pair, policy, reference = logit_pair(3)
    for role, side in pair.sides.items():
        log_p, log_q = (logits[role].detach().log_softmax(-1) for logits in (policy, reference))
        wanted = torch.where(side.mask, (log_q.exp() * (log_q - log_p)).sum(-1), 0.0).sum(-1)
        torch.testing.assert_close(sequence_kl(side).detach(), wanted, rtol=0, atol=1e-12)
        assert (wanted > 0).all()
        other = torch.where(side.mask, (log_p.exp() * (log_p - log_q)).sum(-1), 0.0).sum(-1)
        assert (other - wanted).abs().max() > 0.01, "the other direction would not agree"


def test_kl_of_a_peaked_reference_is_a_number() -> None:
    """The authors' log of a softmax underflows to -inf * 0 there."""
    pair, policy, reference = logit_pair()
    peaked = 2000 * reference["chosen"].detach()
    assert (peaked.softmax(-1) == 0).any()
    side = side_of_logits(policy["chosen"], peaked, torch.zeros(4, 5, dtype=torch.long), pair.chosen.mask)
    assert torch.isfinite(sequence_kl(side)).all()
    (slope,) = torch.autograd.grad(TDPO1()(replace(pair, sides={**pair.sides, "chosen": side})).sum(), policy["chosen"])
    assert torch.isfinite(slope).all()


def test_kl_of_the_chosen_answer_is_pushed_up_and_that_of_the_rejected_one_down() -> None:
    pair = given_pair(1.5, 0.3, 0.8)
    kls = [side.reference_kl for side in (pair.chosen, pair.rejected)]
    chosen, rejected = torch.autograd.grad(TDPO1(beta=0.3)(pair).sum(), [kl for kl in kls if kl is not None])
    push = 0.3 / (1 + math.exp(0.3 * 1.0))
    close(chosen[:, 0], -push, tolerance=1e-12)
    close(rejected[:, 0], push, tolerance=1e-12)


def test_the_reference_gets_no_gradient() -> None:
    pair, policy, reference = logit_pair()
    found = torch.autograd.grad(TDPO1()(pair).sum(), [*policy.values(), *reference.values()], allow_unused=True)
    assert all(slope is not None and slope.any() for slope in found[:2])
    assert found[2:] == (None, None)


def test_swapped_sides_negate_the_margin() -> None:
    pair, *_ = logit_pair(2)
    margin = regret_score(pair.chosen) - regret_score(pair.rejected)
    torch.testing.assert_close(TDPO1(beta=0.2)(pair) - TDPO1(beta=0.2)(pair.swapped()), -0.2 * margin, rtol=0, atol=1e-12)


def test_it_logs_margin_rewards_and_kl() -> None:
    found = TDPO1(beta=0.1).measures(given_pair(1.5, 0.3, 0.8))
    wanted = {"score/margins": 0.1, "score/accuracies": 1.0, "score/chosen": 0.18, "score/rejected": 0.08, "kl/chosen": 0.3, "kl/rejected": 0.8}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        close(found[name].value / found[name].count, value)


def test_without_kl_it_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="declare reference_kl in its needs"):
        TDPO1()(worked_pair())
