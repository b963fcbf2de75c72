"""A score for every token type from pairs and people's marks: Bayesian ridge regressions on token counts, averaged over priors by evidence [OURS].

Pairs: sigma(sum of the chosen answer's scores - sum of the rejected one's), a logistic regression without intercept on differences of counts.
Marks: a linear regression of a stretch's mark on its counts, which unlike a logistic one takes graded marks and has an exact posterior; what
a mark is worth in nats is then one more weight of the pairs' regression.
Source: ours; Laplace's approximation and the evidence of priors: MacKay 1992, https://doi.org/10.1162/neco.1992.4.5.720 (number: memory).
Deviations: not from a paper. The priors, the probability of knowing nothing and the limit of exact covariances are [choice].
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.linalg import solve_triangular
from scipy.special import expit, log_expit, logsumexp

from finegrain.ops.word_features import TokenType, type_features
from finegrain.types import chunks

VARIANCES = (1 / 16, 1 / 4, 1.0)
"""Prior variances of a type's score: nats^2, or shares of the marks' variance."""
SPELLING = (0.0, 0.5)
"""Shares of the prior variance that types of like spelling have in common."""
NOISE = (0.25, 0.5, 0.75)
"""Shares of the marks' variance that no count explains."""
IGNORANCE = 0.1
"""Prior probability that the labels say nothing, so that every score is 0."""
EXACT = 2000
"""Rows up to which covariances are exact (full Laplace). With more, determinants are scaled up from as many, and covariances diagonal in features."""
NEGLIGIBLE = 1e-3
"""Posterior probability below which a prior is left out."""


class TokenTable(NamedTuple):
    """Posterior of the scores of all types."""

    mean: Float[np.ndarray, " V"]
    std: Float[np.ndarray, " V"]
    knowledge: float
    """Posterior probability that the labels say anything; means are shrunk by it."""


class RidgeFit(NamedTuple):
    """A ridge regression with prior variance 1."""

    weights: Float[np.ndarray, " F"]
    curvature: Float[np.ndarray, " n"]
    """Minus the second derivative of every row's log-likelihood by its prediction."""
    log_likelihood: float


@dataclass(frozen=True)
class RidgePrior:
    """A prior with its regression."""

    features: sparse.csr_array
    """(V, F), scaled by the prior standard deviation."""
    regress: Callable[[sparse.csr_array], RidgeFit]


def fit_pairs(types: Sequence[TokenType], differences: sparse.csr_array, rarity: np.ndarray, marks: TokenTable | None = None) -> TokenTable:
    """Scores in nats from (n, V) counts of chosen answers minus those of rejected ones; `marks`: scores of the same types from marks.

    Marks count as one more feature, of root mean square 1 over the types they score and prior variance 1. rarity: `inverse_frequency`.
    """
    features = list(_priors(types, rarity))
    nothing = -np.log(2) * differences.shape[0]
    if marks is None or not marks.mean.any():
        return _average([RidgePrior(own, _logistic) for own in features], differences, nothing)[0]
    size = np.sqrt(np.mean(np.square(marks.mean[marks.mean != 0])))
    extra = sparse.csr_array((marks.mean / size)[:, None])
    with_marks = [RidgePrior(sparse.csr_array(sparse.hstack([own, extra])), _logistic) for own in features]
    table, worth = _average(with_marks, differences, nothing)
    return table._replace(std=np.hypot(table.std, worth / size * marks.std))


def fit_marks(types: Sequence[TokenType], counts: sparse.csr_array, values: Float[np.ndarray, " n"], rarity: np.ndarray) -> TokenTable:
    """Scores in the marks' units from (n, V) counts of marked stretches of text and what each was marked with."""
    centred = values - values.mean()
    scale = float(centred.std())
    if scale < 1e-9:
        return TokenTable(np.zeros(len(types)), np.zeros(len(types)), 0.0)
    candidates = [
        RidgePrior(scale * features, partial(_linear, values=centred, noise=noise * scale**2))
        for features, noise in product(_priors(types, rarity), NOISE)
    ]
    return _average(candidates, counts, _gaussian(centred, scale**2))[0]


def _priors(types: Sequence[TokenType], rarity: np.ndarray) -> Iterator[sparse.csr_array]:
    """Features of types (V, F) whose products are prior covariances; with rarity, frequent types are expected to say less."""
    for spelling in SPELLING:
        features = type_features(types, spelling=spelling)
        for scale, variance in product((np.ones(len(types)), rarity), VARIANCES):
            yield sparse.csr_array(sparse.diags_array(np.sqrt(variance) * scale) @ features)


def inverse_frequency(documents: sparse.csr_array) -> Float[np.ndarray, " V"]:
    """1 - log(documents with the type) / log(all documents), from (n, V) counts; 0 for a type of all of them, 1 for one of a single one."""
    count = documents.shape[0]
    present = np.maximum((documents > 0).sum(0), 1)
    return np.asarray(1 - np.log(present) / np.log(count))


def _logistic(rows: sparse.csr_array) -> RidgeFit:
    """P(label) = sigma(row . weights)."""
    from sklearn.linear_model import LogisticRegression

    signs = np.where(np.arange(rows.shape[0]) % 2 == 0, 1.0, -1.0)  # a pair and its swapped copy have one likelihood; two classes are needed
    model = LogisticRegression(fit_intercept=False, tol=1e-6, max_iter=2000).fit(sparse.diags_array(signs) @ rows, signs > 0)
    margins = rows @ model.coef_[0]
    return RidgeFit(model.coef_[0], expit(margins) * expit(-margins), float(log_expit(margins).sum()))


def _linear(rows: sparse.csr_array, values: np.ndarray, noise: float) -> RidgeFit:
    """values ~ N(row . weights, noise)."""
    from sklearn.linear_model import Ridge

    weights = Ridge(alpha=noise, fit_intercept=False, solver="sparse_cg", tol=1e-8).fit(rows, values).coef_
    return RidgeFit(weights, np.full(len(values), 1 / noise), _gaussian(values - rows @ weights, noise))


def _gaussian(errors: np.ndarray, variance: float) -> float:
    """Log-density of independent errors, up to a constant per error."""
    return float(-0.5 * (np.square(errors).sum() / variance + len(errors) * np.log(variance)))


def _average(candidates: Sequence[RidgePrior], design: sparse.csr_array, nothing: float) -> tuple[TokenTable, float]:
    """Mean and deviation of the types' scores over all priors by their evidence, and the mean weight of the last feature.

    nothing: log-likelihood where all scores are 0, a prior of its own.
    """
    rows = [sparse.csr_array(design @ candidate.features) for candidate in candidates]
    fits = [candidate.regress(own) for candidate, own in zip(candidates, rows, strict=True)]
    evidence = np.array([_evidence(own, fit) for own, fit in zip(rows, fits, strict=True)]) - np.log(len(candidates)) + np.log1p(-IGNORANCE)
    shares = np.exp(evidence - logsumexp([*evidence, nothing + np.log(IGNORANCE)]))
    mean, square, last = np.zeros(design.shape[1]), np.zeros(design.shape[1]), 0.0
    for share, candidate, own, fit in zip(shares, candidates, rows, fits, strict=True):
        if share > NEGLIGIBLE:
            scores = candidate.features @ fit.weights
            mean += share * scores
            square += share * (scores**2 + _variance(candidate.features, own, fit.curvature))
            last += share * float(fit.weights[-1])
    return TokenTable(mean, np.sqrt(np.maximum(square - mean**2, 0.0)), float(shares.sum())), last


def _evidence(rows: sparse.csr_array, fit: RidgeFit) -> float:
    """Laplace's approximation of the log-probability of the labels under the prior."""
    factor = _cholesky(rows, fit.curvature)
    determinant = rows.shape[0] / len(factor) * np.log(np.diag(factor)).sum()
    return float(fit.log_likelihood - 0.5 * np.square(fit.weights).sum() - determinant)


def _weighted(rows: sparse.csr_array, curvature: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array(sparse.diags_array(np.sqrt(curvature)) @ rows)


def _cholesky(rows: sparse.csr_array, curvature: np.ndarray) -> np.ndarray:
    """Of I + B^(1/2) X X' B^(1/2), over at most `EXACT` rows."""
    weighted = _weighted(rows[:EXACT], curvature[:EXACT])
    return np.asarray(np.linalg.cholesky(np.eye(weighted.shape[0]) + (weighted @ weighted.T).toarray()))


def _variance(features: sparse.csr_array, rows: sparse.csr_array, curvature: np.ndarray) -> np.ndarray:
    """Posterior variance of every type's score."""
    squares = features.power(2)
    weighted = _weighted(rows, curvature)
    if rows.shape[0] > EXACT:
        return np.asarray(squares @ (1 / (1 + weighted.power(2).sum(0))))
    lower = _cholesky(rows, curvature)
    explained = [
        np.square(solve_triangular(lower, (weighted @ features[part].T).toarray(), lower=True)).sum(0) for part in chunks(features.shape[0], 4096)
    ]
    return np.asarray(np.maximum(squares.sum(1) - np.concatenate(explained), 0.0))
