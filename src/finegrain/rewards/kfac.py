"""Laplace posterior over many weight matrices (such as the two of every LoRA): a Kronecker-factored curvature with a low-rank large factor.

    H_l = (B B^T) (x) S,  S = L L^T;   M = I + s2 (B^T B (x) L^T L)
    var = sum_l [ s2 |J_l|^2 - s2^2 v^T M^-1 v ],   v = vec(B^T J_l L)

Source: Laplace-LoRA, https://arxiv.org/abs/2308.13111, used by https://arxiv.org/abs/2402.13210; derived from the formula,
not from the authors' code, whose evidence has other signs.
Deviations: curvature of the pair likelihood, exact in the labels; every token of an answer enters, not only its last position [choice].
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

JITTER = 1e-8
"""Added to the small factor's diagonal, in units of its mean: the rounding error of a sum of squares in float64."""


class Kronecker(NamedTuple):
    """Curvature of one weight matrix (d, r), d the large side: (large large^T) (x) small. float64."""

    large: Float[Tensor, "d k"]
    small: Float[Tensor, "r r"]

    @property
    def eigenvalues(self) -> Float[Tensor, " P"]:
        """The k * r eigenvalues that are not 0 by construction: all that the evidence needs."""
        left = torch.linalg.eigvalsh(self.large.T @ self.large).clamp(min=0.0)
        right = torch.linalg.eigvalsh(self.small).clamp(min=0.0)
        return torch.outer(left, right).flatten()

    def covariance(self, left: Float[Tensor, "N d r"], right: Float[Tensor, "N d r"], prior_variance: float) -> Float[Tensor, " N"]:
        """left^T (H + I / s2)^-1 right for pairs of gradients."""
        size, left, right = len(self.small), left.to(self.small.dtype), right.to(self.small.dtype)
        scale = self.small.diagonal().mean().clamp(min=torch.finfo(self.small.dtype).tiny)
        root = torch.linalg.cholesky(self.small + JITTER * scale * torch.eye(size, dtype=self.small.dtype))
        inner = torch.kron(self.large.T @ self.large, root.T @ root)
        chol = torch.linalg.cholesky(torch.eye(len(inner), dtype=inner.dtype) + prior_variance * inner)
        projected = [(self.large.T @ gradient @ root).flatten(-2) for gradient in (left, right)]
        solved = torch.cholesky_solve(projected[1].T, chol).T
        plain = (left * right).sum((-2, -1))
        value: Tensor = prior_variance * plain - prior_variance**2 * (projected[0] * solved).sum(-1)
        return value


def kronecker_variance(factors: dict[str, Kronecker], jacobians: dict[str, Float[Tensor, "N d r"]], prior_variance: float) -> Float[Tensor, " N"]:
    """Predictive variance of N rewards (or differences of rewards) from their gradients by layer, in squared units of the reward."""
    parts = [factor.covariance(jacobians[name], jacobians[name], prior_variance) for name, factor in factors.items()]
    return torch.stack(parts).sum(0)


class Sketch:
    """A growing sum of outer products, kept as (d, k) with sketch sketch^T closest to it: each addition loses its smallest directions."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.columns: Tensor | None = None

    def add(self, rows: Float[Tensor, "N d"]) -> None:
        """Adds sum_n row row^T; the k largest directions are kept. Uses eigenvectors of the smaller Gram matrix: a singular value decomposition takes
        several times as long."""
        new = rows.double().T
        joined = new if self.columns is None else torch.cat([self.columns, new], 1)
        if joined.shape[1] <= joined.shape[0]:
            _, right = torch.linalg.eigh(joined.T @ joined)
            self.columns = joined @ right[:, -self.rank :].flip(1)
        else:
            squares, left = torch.linalg.eigh(joined @ joined.T)
            self.columns = (left * squares.clamp(min=0.0).sqrt())[:, -self.rank :].flip(1)
