"""Estimators of the KL, their gradients in expectation, clips, and the adaptive weight."""

import pytest
import torch
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.online.leash import K1, K2, K3, Abs, AdaptiveBeta, Estimator, FixedBeta, Free, InLoss, InReward, adapt_beta, estimate_kl, start_beta

ESTIMATORS: tuple[Estimator, ...] = (K1(), K2(), K3(), Abs())


def real(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_worked() -> None:
    found = [float(estimator(real(-1.0), real(-1.5))) for estimator in ESTIMATORS]
    assert found == pytest.approx([0.5, 0.125, 0.1065307, 0.5])
    assert [float(estimator(real(-1.5), real(-1.0))) for estimator in ESTIMATORS] == pytest.approx([-0.5, 0.125, 0.1487213, 0.5])


def test_zero_where_the_policies_agree_and_only_k1_is_ever_negative() -> None:
    logp, ref = -torch.rand(2, 50, 40, dtype=torch.float64)
    for estimator in ESTIMATORS:
        assert not estimator(logp, logp).any()
        assert bool((estimator(logp, ref) >= 0).all()) == (not isinstance(estimator, K1))


def test_limits() -> None:
    far, ref = real(-50.0, 0.0), real(0.0, -50.0)
    assert K3()(far, ref)[0, 0] == pytest.approx(torch.tensor(20.0).double().exp().item() - 21)
    assert K3(ratio_limit=1.0)(far, ref)[0, 0] == pytest.approx(torch.e - 2)
    for kind in (K1, K2, K3, Abs):
        assert kind(limit=10.0)(far, ref).abs().max() == 10


def expectations(estimator: Estimator, *, corrected: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the expected estimate over samples of the old policy, and those of both KL, for a categorical policy."""
    generator = torch.Generator().manual_seed(1)
    logits, other = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    logp, ref = logits.log_softmax(-1)[None], other.log_softmax(-1)[None]
    old = logp.detach() + (0.3 * torch.randn(1, 5, generator=generator, dtype=torch.float64) if corrected else 0.0)
    old = old.log_softmax(-1)
    estimate = estimator(logp, ref) * ((logp - old).exp() if corrected else 1.0)
    losses = ((old.exp() * estimate).sum(), (logp.exp() * (logp - ref)).sum(), (ref.exp() * (ref - logp)).sum())
    found, forward, backward = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in losses)
    return found, forward, backward


def test_gradients_in_expectation() -> None:
    close = {"rtol": 1e-10, "atol": 1e-12}
    zero = expectations(K1(), corrected=False)[0]
    torch.testing.assert_close(zero, torch.zeros_like(zero), **close)
    found, to_ref, _ = expectations(K2(), corrected=False)
    torch.testing.assert_close(found, to_ref, **close)
    found, to_ref, from_ref = expectations(K3(), corrected=False)
    torch.testing.assert_close(found, from_ref, **close)
    assert not torch.allclose(found, to_ref, atol=1e-3)
    found, to_ref, _ = expectations(K3(), corrected=True)
    torch.testing.assert_close(found, to_ref, **close)


def test_the_pairing_without_a_gradient_is_refused() -> None:
    with pytest.raises(UsageError, match="k1 in the loss"):
        InLoss(estimator=K1(), corrected=False)
    InLoss(estimator=K1())


def test_garbage_under_the_mask() -> None:
    mask = torch.tensor([[True, False]])
    logp = real(-1.0, torch.nan).requires_grad_()
    for estimator in ESTIMATORS:
        kl = estimate_kl(estimator, logp, real(-1.5, torch.inf), mask)
        assert kl[0, 1] == 0
        assert torch.autograd.grad(kl.sum(), logp)[0].isfinite().all()


def test_adaptive_weight() -> None:
    control = AdaptiveBeta(target=0.1, horizon=1000)
    assert control(0.05, 0.1, 100) == 0.05
    assert control(0.05, 0.11, 100) == pytest.approx(0.05 * (1 + 0.1 * 0.1))
    assert control(0.05, 9.0, 100) == pytest.approx(0.05 * 1.02)
    assert control(0.05, -9.0, 100) == pytest.approx(0.05 * 0.98)
    assert FixedBeta()(0.05, 9.0, 100) == 0.05


def test_the_weight_follows_the_mean_over_answers() -> None:
    """Means over tokens are 2 and 0, whatever their numbers of tokens; an answer without tokens counts for nothing."""
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    old, ref = torch.where(mask, -1.0, torch.nan), torch.full((3, 3), -1.0)
    ref[0] = -3.0
    leash = InReward(beta=0.5, control=AdaptiveBeta(target=1.1, horizon=30))
    assert adapt_beta(leash, 0.5, old, ref, mask) == pytest.approx(0.5 * (1 - 0.1 / 1.1 * 3 / 30))
    assert adapt_beta(leash, 0.5, old, None, mask) == 0.5
    assert (start_beta(leash), start_beta(InLoss(beta=0.3)), start_beta(Free())) == (0.5, 0.3, 0.0)
