"""brme, what must hold: equal heads, the mix between its ends, and a reward that says nothing. Test of rewards/brme.py."""

import pytest
import torch

from finegrain.ops.aggregate import MeanReward, Nominal, NominalMix, PerBatch, PerSample
from finegrain.types import Scored

WORST = [PerSample(), PerBatch()]


def scored(means: torch.Tensor, seed: int = 0) -> Scored:
    spread = torch.rand(means.shape, generator=torch.Generator().manual_seed(seed), dtype=means.dtype) + 0.1
    return Scored(means.mean(0), None, means, spread)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("worst", WORST, ids=lambda worst: type(worst).__name__)
def test_equal_heads_are_one_reward(worst: PerSample | PerBatch) -> None:
    row = drawn(12)
    same = scored(row.expand(4, -1))
    for aggregate in (Nominal(), worst, *(NominalMix(share=share, worst=worst) for share in (0.0, 0.4, 1.0))):
        assert torch.equal(aggregate(same), row)
    torch.testing.assert_close(MeanReward()(same), row, rtol=0, atol=1e-12)


@pytest.mark.parametrize("worst", WORST, ids=lambda worst: type(worst).__name__)
def test_the_mix_is_a_line_in_its_share(worst: PerSample | PerBatch) -> None:
    some = scored(drawn(4, 30))
    low, high = worst(some), Nominal()(some)
    for share in (0.1, 0.25, 0.4, 0.7, 0.95):
        torch.testing.assert_close(NominalMix(share=share, worst=worst)(some), low + share * (high - low), rtol=0, atol=1e-12)


def test_a_constant_reward_moves_no_policy() -> None:
    """The exact gradient of the expected mix over all answers is 0, and with the penalty it is the penalty's alone."""
    logits, reference = drawn(6).requires_grad_(), drawn(2, 6)[1].log_softmax(0)
    constant = scored(torch.tensor([1.0, 0.2, 0.7], dtype=torch.float64)[:, None].expand(-1, 6))
    constant = constant._replace(member_std=torch.tensor([0.1, 0.5, 0.3], dtype=torch.float64)[:, None].expand(-1, 6))
    reward = NominalMix(share=0.4)(constant)
    torch.testing.assert_close(reward, torch.full((6,), 0.52, dtype=torch.float64))
    log_p = logits.log_softmax(0)
    (slope,) = torch.autograd.grad((log_p.exp() * reward).sum(), logits, retain_graph=True)
    assert slope.abs().max() < 1e-15
    kl = (log_p.exp() * (log_p - reference)).sum()
    (alone,) = torch.autograd.grad(-0.1 * kl, logits, retain_graph=True)
    (both,) = torch.autograd.grad((log_p.exp() * reward).sum() - 0.1 * kl, logits)
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-15)
    assert alone.abs().max() > 1e-3
