"""Least norm in a convex hull: two in closed form, more against a grid and the conditions of the optimum, degenerate ones."""

import pytest
import torch

from finegrain.ops.min_norm import min_norm_weights


def drawn(count: int, seed: int, width: int = 4) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(6))
def test_two_in_closed_form(seed: int) -> None:
    one, other = drawn(2, seed, 3) + seed / 3
    want = float((other @ other - one @ other) / ((one - other) @ (one - other)))
    found = min_norm_weights(torch.stack([one, other]) @ torch.stack([one, other]).T)
    assert found.tolist() == pytest.approx([min(max(want, 0), 1), 1 - min(max(want, 0), 1)])


@pytest.mark.parametrize(("count", "width"), [(3, 2), (3, 5), (5, 3), (8, 20)])
def test_more_meet_the_conditions_of_the_optimum(count: int, width: int) -> None:
    """Every vector points at least as far along the sum as the sum itself, and those with a weight exactly as far."""
    for seed in range(5):
        vectors = drawn(count, seed, width) + 0.5
        weights = min_norm_weights(vectors @ vectors.T)
        along, square = vectors @ (weights @ vectors), float((weights @ vectors).square().sum())
        assert float(weights.min()) >= 0
        assert float(weights.sum()) == pytest.approx(1)
        assert float(along.min()) >= square - 1e-9
        torch.testing.assert_close(along[weights > 1e-9], torch.full_like(along[weights > 1e-9], square), atol=1e-8, rtol=0)


def test_scale_and_order_and_nothing() -> None:
    vectors = drawn(3, 1) + 0.5
    weights = min_norm_weights(vectors @ vectors.T)
    torch.testing.assert_close(min_norm_weights(1e-9 * vectors @ vectors.T), weights)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(min_norm_weights(vectors[order] @ vectors[order].T), weights[order])
    assert float(min_norm_weights(torch.zeros(3, 3)).sum()) == 1
    same = torch.ones(2, 2)
    assert float(min_norm_weights(same).sum()) == 1
    assert min_norm_weights(torch.ones(1, 1)).tolist() == [1.0]
