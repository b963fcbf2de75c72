"""Gaussian rewards: divergence, density, optimum."""

import math

import pytest
import torch

from finegrain.ops.variational import (
    evidence,
    gaussian_kl,
    gaussian_log_density,
    has_successor,
    scaled_kl,
    temporal_differences,
    transition_loss,
)

real = lambda *values: torch.tensor(values, dtype=torch.float64)


def test_kl_is_that_of_torch() -> None:
    mean, log_std = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    normal = torch.distributions.Normal
    want = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(real(0.0), real(1.0)))
    torch.testing.assert_close(gaussian_kl(mean, log_std), want)
    torch.testing.assert_close(gaussian_log_density(real(0.3), mean, log_std), normal(mean, log_std.exp()).log_prob(real(0.3)))
    assert gaussian_kl(real(0.0), real(0.0)).item() == 0
    assert gaussian_kl(real(1.0), real(0.0)).item() == 0.5
    assert gaussian_kl(real(0.0), real(0.5).log()).item() == pytest.approx(0.3181, abs=1e-4)


def test_the_optimal_mean_is_half_the_difference() -> None:
    """At sd = 1 and lambda = 1: prior shrinkage."""
    delta = 1.3
    mean = real(delta / 2).requires_grad_()
    loss = gaussian_kl(mean, real(0.0)) - gaussian_log_density(real(delta), mean, real(0.0))
    (gradient,) = torch.autograd.grad(loss.sum(), mean)
    assert abs(gradient.item()) < 1e-12


def test_successors_end_at_holes() -> None:
    mask = torch.tensor([[True, True, False, True, True, True, False]])
    assert has_successor(mask).tolist() == [[True, False, False, True, True, False, False]]


def test_evidence_is_the_sum_of_transitions() -> None:
    q, outputs = torch.randn(1, 4, dtype=torch.float64), torch.randn(1, 4, 2, dtype=torch.float64)
    found = evidence(q, outputs, torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 4, dtype=torch.float64), gamma=0.8)
    losses = transition_loss(torch.zeros(3, dtype=torch.float64), q[0, :3], q[0, 1:], outputs[0, :3, 0], outputs[0, :3, 1], gamma=0.8)
    assert (found.kl - found.fit).item() == pytest.approx(losses.sum().item())
    assert found.transitions.item() == 3


def test_garbage_outside_the_mask_has_no_gradient() -> None:
    q = torch.tensor([[0.1, 0.2, float("nan")]], dtype=torch.float64, requires_grad=True)
    outputs = torch.full((1, 3, 2), float("nan"), dtype=torch.float64)
    outputs[0, :2] = 0.1
    outputs.requires_grad_()
    found = evidence(q, outputs, torch.tensor([[True, True, False]]), torch.ones(1, 3, dtype=torch.float64))
    gradients = torch.autograd.grad((found.kl - found.fit).sum(), [q, outputs])
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_kl_to_a_prior_of_another_width() -> None:
    """Against torch's own KL of two Gaussians; width 1 is the KL to N(0, 1)."""
    mean, log_std = torch.tensor([0.7, -2.0], dtype=torch.float64), torch.tensor([0.3, -1.0], dtype=torch.float64)
    for width in (0.2, 1.0, 3.5):
        prior = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), torch.full((2,), width, dtype=torch.float64))
        want = torch.distributions.kl_divergence(torch.distributions.Normal(mean, log_std.exp()), prior)
        torch.testing.assert_close(scaled_kl(mean, log_std, torch.tensor(width, dtype=torch.float64)), want)
    torch.testing.assert_close(scaled_kl(mean, log_std, torch.ones((), dtype=torch.float64)), gaussian_kl(mean, log_std))


def test_temporal_differences_by_hand() -> None:
    """Only of tokens whose next token is the answer's too; what stands under the mask reaches nothing."""
    q = torch.tensor([[1.0, 3.0, math.nan, 2.0, 5.0, 7.0]])
    mask = torch.tensor([[True, True, False, True, True, True]])
    delta, known = temporal_differences(q, mask, gamma=0.5)
    assert known.tolist() == [[True, False, False, True, True, False]]
    assert delta.tolist() == [[1 - 1.5, 0, 0, 2 - 2.5, 5 - 3.5, 0]]
