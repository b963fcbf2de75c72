"""Low-rank Kronecker curvature against the dense inverse, and the growing sketch of a large factor."""

import pytest
import torch
from torch import Tensor

from finegrain.rewards.kfac import Kronecker, Sketch, kronecker_variance
from finegrain.rewards.laplace import EvidenceVariance


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factor(large: int = 6, rank: int = 3, small: int = 2, seed: int = 0) -> Kronecker:
    root = drawn(small, small, seed=seed + 1)
    return Kronecker(drawn(large, rank, seed=seed), root @ root.T + 0.1 * torch.eye(small, dtype=torch.float64))


def dense(one: Kronecker) -> Tensor:
    return torch.kron(one.large @ one.large.T, one.small)


def test_variance_is_the_dense_inverse() -> None:
    factors = {"A": factor(), "B": factor(4, 2, 3, seed=5)}
    jacobians = {"A": drawn(7, 6, 2, seed=8), "B": drawn(7, 4, 3, seed=9)}
    want = torch.zeros(7, dtype=torch.float64)
    for name, one in factors.items():
        flat = jacobians[name].flatten(1)
        inverse = torch.linalg.inv(dense(one) + torch.eye(flat.shape[1], dtype=torch.float64) / 0.7)
        want += torch.einsum("np,pq,nq->n", flat, inverse, flat)
    torch.testing.assert_close(kronecker_variance(factors, jacobians, 0.7), want, rtol=1e-6, atol=1e-9)
    left, right = drawn(3, 6, 2, seed=1), drawn(3, 6, 2, seed=2)
    inverse = torch.linalg.inv(dense(factors["A"]) + torch.eye(12, dtype=torch.float64) / 0.7)
    want = torch.einsum("np,pq,nq->n", left.flatten(1), inverse, right.flatten(1))
    torch.testing.assert_close(factors["A"].covariance(left, right, 0.7), want, rtol=1e-6, atol=1e-8)


def test_the_jitter_is_relative_to_the_small_factor() -> None:
    """A millionth of the small factor with a thousand times the root of the large one is the same curvature."""
    one, jacobian = factor(), drawn(7, 6, 2, seed=8)
    same = Kronecker(1e3 * one.large, 1e-6 * one.small)
    torch.testing.assert_close(same.covariance(jacobian, jacobian, 0.7), one.covariance(jacobian, jacobian, 0.7), rtol=1e-6, atol=0)


def test_gradients_are_widened_to_the_factors_precision() -> None:
    left, right = drawn(3, 6, 2, seed=1).float(), drawn(3, 6, 2, seed=2).float()
    for pair in ((left, right), (left.double(), right), (left, right.double())):
        torch.testing.assert_close(factor().covariance(*pair, 0.7), factor().covariance(left.double(), right.double(), 0.7), rtol=1e-12, atol=0)


def test_limits() -> None:
    jacobian = {"A": drawn(7, 6, 2, seed=8)}
    norm = jacobian["A"].square().sum((-2, -1))
    blank = {"A": Kronecker(torch.zeros(6, 3, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64))}
    torch.testing.assert_close(kronecker_variance(blank, jacobian, 0.7), 0.7 * norm)
    some = kronecker_variance({"A": factor()}, jacobian, 0.7)
    assert (some > 0).all()
    assert (some < 0.7 * norm).all(), "data never add variance"
    torch.testing.assert_close(kronecker_variance({"A": factor()}, {"A": 3 * jacobian["A"]}, 0.7), 9 * some)
    assert kronecker_variance({"A": factor()}, jacobian, 1e-12).max() < 1e-9


def test_eigenvalues_are_those_of_the_dense_curvature() -> None:
    """Those that are not listed are 0, and the evidence does not see them."""
    one = factor()
    listed, whole = one.eigenvalues.sort().values, torch.linalg.eigvalsh(dense(one))
    torch.testing.assert_close(listed, whole[-6:])
    assert EvidenceVariance()(listed, 2.0) == pytest.approx(EvidenceVariance()(whole.clamp(min=0.0), 2.0), rel=1e-6)


def test_a_sketch_of_enough_rank_is_exact_and_a_small_one_keeps_the_largest() -> None:
    rows = drawn(9, 4)
    whole, small = Sketch(4), Sketch(1)
    for part in rows.split(2):
        whole.add(part)
        small.add(part)
    assert whole.columns is not None
    assert small.columns is not None
    torch.testing.assert_close(whole.columns @ whole.columns.T, rows.T @ rows)
    assert small.columns.shape == (4, 1)
    gap = rows.T @ rows - small.columns @ small.columns.T
    assert torch.linalg.eigvalsh(gap).min() > -1e-9, "never more curvature than there is"


def test_a_sketch_of_small_numbers_is_not_enlarged() -> None:
    rows = 1e-3 * drawn(9, 4)
    sketch = Sketch(4)
    sketch.add(rows)
    assert sketch.columns is not None
    torch.testing.assert_close(sketch.columns @ sketch.columns.T, rows.T @ rows, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("rows", [9, 3], ids=["more rows than columns", "fewer"])
def test_a_sketch_keeps_the_largest_directions(rows: int) -> None:
    """Added at once, the best approximation of its rank: what is lost is exactly the smaller eigenvalues."""
    given = drawn(rows, 4) * torch.tensor([1.0, 10.0, 0.1, 3.0], dtype=torch.float64)
    sketch = Sketch(2)
    sketch.add(given)
    assert sketch.columns is not None
    values, vectors = torch.linalg.eigh(given.T @ given)
    torch.testing.assert_close(sketch.columns @ sketch.columns.T, (vectors[:, -2:] * values[-2:]) @ vectors[:, -2:].T)
