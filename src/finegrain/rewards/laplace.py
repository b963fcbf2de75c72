"""Laplace posterior of a reward that is linear in its weights: the uncertainty of any answer's score given the pairs. Exact, post hoc.

    H = sum_pairs sigma(d) sigma(-d) g g^T,   g = features(chosen) - features(rejected),   d = r(chosen) - r(rejected)
    weights ~ N(trained weights, (H + I / s2)^-1);   var r(x, y) = features^T (H + I / s2)^-1 features

Source: Yang et al. 2024, https://arxiv.org/abs/2402.13210, and Laplace-LoRA, https://arxiv.org/abs/2308.13111.
Deviations: the pair likelihood's curvature is exact, not from sampled labels; s2 is the root of the evidence's slope, not the result of 100 steps
of Adam [choice]; the trained weights are used as the mode whether or not training converged. laplace-torch computes the same posterior
(docs/decisions/0013-laplace.md explains why it is not a dependency).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from scipy.optimize import brentq
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.errors import DataError
from finegrain.rewards.heads import Readout

PRIOR_VARIANCES = (1e-12, 1e12)
"""The range in which the evidence's maximum is searched."""


class Posterior(NamedTuple):
    """A Gaussian over the weights of a linear reward, float64; the curvature is stored by its eigenvectors, so that no inverse is needed."""

    weight: Float[Tensor, " H"]
    curvature: Float[Tensor, " H"]
    """Eigenvalues of the pairs' curvature, at least 0."""
    vectors: Float[Tensor, "H H"]
    """Its eigenvectors in columns."""
    prior_variance: float
    """s2, in squared units of a weight."""

    @property
    def root(self) -> Float[Tensor, "H H"]:
        """R with R^T R = (H + I / s2)^-1: |R features|^2 is the variance, in squared units of the reward."""
        return (self.curvature + 1 / self.prior_variance).rsqrt()[:, None] * self.vectors.T

    def variance(self, features: Float[Tensor, "... H"]) -> Float[Tensor, "..."]:
        """Variance of each reward; of a difference of two rewards, given the difference of their features."""
        projected: Tensor = features @ self.root.T
        return projected.square().sum(-1)

    def covariance(self, left: Float[Tensor, "... H"], right: Float[Tensor, "... H"]) -> Float[Tensor, "..."]:
        """Covariance of two rewards."""
        root = self.root.T
        product: Tensor = (left @ root) * (right @ root)
        return product.sum(-1)

    def win_probability(self, left: Float[Tensor, "... H"], right: Float[Tensor, "... H"]) -> Float[Tensor, "..."]:
        """Probability that the left answer is preferred: sigma(d / sqrt(1 + pi var / 8)), MacKay's mean of a logistic under a Gaussian."""
        difference = left - right
        return torch.sigmoid(difference @ self.weight / (1 + torch.pi / 8 * self.variance(difference)).sqrt())


@dataclass(frozen=True, kw_only=True)
@checked
class FixedVariance:
    """The prior variance as given, such as 1 / weight decay of the fit."""

    variance: PositiveFloat = 1.0

    def __call__(self, curvature: Float[Tensor, " P"], squared_norm: float) -> float:
        """s2."""
        return self.variance


@dataclass(frozen=True, kw_only=True)
class EvidenceVariance:
    """The prior variance under which the data are most probable."""

    def __call__(self, curvature: Float[Tensor, " P"], squared_norm: float) -> float:
        """s2, the only root of the slope: |w|^2 / s2 = sum_i l_i / (l_i + 1 / s2), where the left side falls and the right one rises."""
        if not bool((curvature > 0).any()):
            raise DataError("the pairs do not determine the weights (no curvature), so the evidence has no maximum; set a prior variance")
        if squared_norm == 0:
            raise DataError("all weights are 0, so the evidence has no maximum; train the reward first, or set a prior variance")

        def slope(log_variance: float) -> float:
            scaled = curvature * math.exp(log_variance)
            return squared_norm * math.exp(-log_variance) - float((scaled / (1 + scaled)).sum())

        low, high = (math.log(edge) for edge in PRIOR_VARIANCES)
        if slope(low) <= 0 or slope(high) >= 0:
            raise DataError("the evidence's maximum is outside 1e-12 .. 1e12; check the scale of features and weights, or set a prior variance")
        return math.exp(float(brentq(slope, low, high)))


Prior = FixedVariance | EvidenceVariance


def determined_directions(curvature: Float[Tensor, " P"], prior_variance: float) -> float:
    """Number of weight directions that the pairs determine: sum of l s2 / (1 + l s2) over the curvature's eigenvalues."""
    scaled = curvature * prior_variance
    return float((scaled / (1 + scaled)).sum())


def log_evidence(likelihood: float, curvature: Float[Tensor, " P"], squared_norm: float, prior_variance: float) -> float:
    """Laplace's log p(data), nats: log-likelihood - |w|^2 / (2 s2) - 1/2 log det(I + s2 H)."""
    return likelihood - squared_norm / (2 * prior_variance) - 0.5 * float((curvature * prior_variance).log1p().sum())


def pair_curvature(difference: Float[Tensor, "N H"], logits: Float[Tensor, " N"], weight: Float[Tensor, " N"] | None = None) -> Float[Tensor, "H H"]:
    """Sum over pairs of sigma(d) sigma(-d) g g^T in float64; `weight` multiplies pairs."""
    logits, difference = logits.double(), difference.double()
    certainty = torch.sigmoid(logits) * torch.sigmoid(-logits) * (1.0 if weight is None else weight.double())
    return difference.T @ (certainty[:, None] * difference)


def fit_posterior(weight: Float[Tensor, " H"], curvature: Float[Tensor, "H H"], prior: Prior) -> Posterior:
    """The posterior of trained weights and the curvature of the pairs that trained them."""
    if not bool(curvature.isfinite().all()):
        raise DataError("features or scores of the pairs are not finite; check the model's weights, or try --dtype float32")
    values, vectors = torch.linalg.eigh(curvature.double())
    values = values.clamp(min=0.0)
    mode = weight.double()
    return Posterior(mode, values, vectors, prior(values, float(mode.square().sum())))


def answer_features(
    readout: Readout, tokens: Float[Tensor, "B T"], states: Float[Tensor, "B T H"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B H"]:
    """The features in which an answer's score is linear: its tokens' states under the slopes of the readout (for a minimum, one token's state)."""
    with torch.enable_grad():
        at = torch.where(mask, tokens, 0.0).detach().requires_grad_()
        (slope,) = torch.autograd.grad(readout(at, mask).sum(), at)
    return torch.einsum("bt,bth->bh", slope, torch.where(mask[..., None], states, 0.0).to(slope.dtype))
