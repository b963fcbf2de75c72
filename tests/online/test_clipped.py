"""Clipped surrogate: limits, a loop, and rows that kept nothing."""

import torch

from finegrain.online.clipped import clipped_policy_loss

B, T = 5, 7


def draw() -> list[torch.Tensor]:
    return [torch.randn(B, T, dtype=torch.float64) for _ in range(3)]


def test_equals_a_loop() -> None:
    logp, old, advantages = draw()
    weight = torch.rand(B, T, dtype=torch.float64) * (torch.rand(B, T) < 0.7)
    weight[2] = 0
    term = clipped_policy_loss(logp, old, advantages, weight, clip=0.2)
    for row in range(B):
        total, norm = 0.0, 0.0
        for t in range(T):
            ratio = float((logp[row, t] - old[row, t]).exp())
            a, w = float(advantages[row, t]), float(weight[row, t])
            total += w * max(-ratio * a, -min(max(ratio, 0.8), 1.2) * a)
            norm += w
        torch.testing.assert_close(term.value[row], torch.tensor(total / max(1.0, norm), dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert term.count.tolist() == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert term.coefficient == 1.0


def test_full_mask_is_ppo_and_at_the_old_policy_the_gradient_is_minus_the_advantage() -> None:
    logp, _, advantages = draw()
    mask = torch.ones(B, T, dtype=torch.bool)
    logp.requires_grad_()
    term = clipped_policy_loss(logp, logp.detach(), advantages, mask, clip=0.2)
    torch.testing.assert_close(term.value.detach(), -advantages.mean(1))
    (grad,) = torch.autograd.grad(term.value.sum(), logp)
    torch.testing.assert_close(grad, -advantages / T)
    weighted = clipped_policy_loss(logp, logp.detach(), advantages, mask.double(), clip=0.2)
    assert torch.equal(weighted.value, term.value)


def test_garbage_where_the_weight_is_0() -> None:
    logp, old, advantages = (value.requires_grad_() for value in draw())
    mask = torch.rand(B, T) < 0.6
    mask[0] = False
    want = clipped_policy_loss(logp, old, advantages, mask, clip=0.1)
    junk = [value.detach().masked_fill(~mask, torch.nan).requires_grad_() for value in (logp, old, advantages)]
    got = clipped_policy_loss(junk[0], junk[1], junk[2], mask, clip=0.1)
    assert torch.equal(got.value, want.value)
    (grad,) = torch.autograd.grad(got.value.sum(), junk[0])
    assert grad[~mask].eq(0).all()
    assert grad.isfinite().all()


def test_the_dtype_is_that_of_the_log_probabilities() -> None:
    logp = torch.zeros(1, 2)
    term = clipped_policy_loss(logp, logp, torch.ones(1, 2), torch.tensor([[0.5, 1.0]], dtype=torch.float64), clip=0.2)
    assert term.value.dtype == term.count.dtype == torch.float32
    assert term.value.tolist() == [-1.0]
