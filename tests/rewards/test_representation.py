"""Contrastive losses on features."""

import math

import pytest
import torch

from finegrain.rewards.representation import simcse_loss, sinkhorn_codes, swav_loss, uniform


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_simcse_by_hand() -> None:
    """Orthogonal items seen the same in both views: log(1 + e^(-1/tau)); length does not matter."""
    views = torch.tensor([[2.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    assert simcse_loss(views, 3 * views, temperature=0.5).tolist() == pytest.approx([math.log(1 + math.exp(-2))] * 2)


def test_simcse_of_a_single_item_is_zero() -> None:
    assert simcse_loss(draw(1, 4), draw(1, 4, seed=1)).tolist() == [0.0]


def test_simcse_agrees_with_a_naive_loop() -> None:
    first, second = draw(5, 3), draw(5, 3, seed=1)
    cos = lambda a, b: float(a @ b / (a.norm() * b.norm()))
    want = [-cos(first[i], second[i]) / 0.05 + math.log(sum(math.exp(cos(first[i], second[j]) / 0.05) for j in range(5))) for i in range(5)]
    assert simcse_loss(first, second).tolist() == pytest.approx(want, rel=1e-10)


def test_dropout_keeps_its_share_and_its_rows() -> None:
    kept = uniform(torch.arange(200.0), 100, 0) >= 0.3
    assert float(kept.double().mean()) == pytest.approx(0.7, abs=0.02)
    assert torch.equal(uniform(torch.tensor([7.0, 3.0]), 9, 1), uniform(torch.tensor([3.0, 7.0]), 9, 1).flip(0))


def test_codes_share_the_prototypes_out() -> None:
    """Rows sum to 1, and columns come to the same sum where plain probabilities pile up on one prototype."""
    scores = 0.1 * draw(40, 4)
    scores[:, 0] += 0.5
    codes = sinkhorn_codes(scores, temperature=0.2, iterations=50)
    torch.testing.assert_close(codes.sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((4,), 10.0, dtype=torch.float64), rtol=1e-6, atol=0)
    assert torch.softmax(scores / 0.2, 1).sum(0)[0] > 25


def test_swav_by_hand() -> None:
    """Two orthogonal items on their own prototypes: codes after one round, cross-entropies log(1 + e^(-1/tau))."""
    views = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    code = 1 / (1 + math.exp(-1 / 0.05))
    stay, leave = math.log(1 + math.exp(-1 / 0.1)), math.log(1 + math.exp(1 / 0.1))
    want = 2 * (code * stay + (1 - code) * leave)
    assert swav_loss(views, 2 * views, 5 * torch.eye(2, dtype=torch.float64), iterations=1).tolist() == pytest.approx([want, want], rel=1e-12)


def test_swav_prefers_views_that_agree() -> None:
    """The two views may be exchanged, and codes carry no gradient."""
    first, prototypes = draw(8, 6), draw(3, 6, seed=2)
    same, other = swav_loss(first, first, prototypes), swav_loss(first, first.flip(0), prototypes)
    assert float(same.mean()) < float(other.mean())
    second = draw(8, 6, seed=3)
    torch.testing.assert_close(swav_loss(first, second, prototypes), swav_loss(second, first, prototypes))
    assert not sinkhorn_codes(first.clone().requires_grad_()).requires_grad
