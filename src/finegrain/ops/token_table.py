"""A score for every token type from pairs and people's marks: Bayesian logistic regressions on token counts, averaged over priors by evidence [OURS].

Pairs: sigma(sum of the chosen answer's scores - sum of the rejected one's), without intercept, on differences of counts.
Marks: the share of a stretch of text that is good, between the worst and the best mark, by lapse + (1 - 2 lapse) sigma(base + sum of its
scores): people mark the wrong sentence now and then. A type is worth what a stretch of it alone would be marked with, which saturates as
probabilities do; what that is worth in nats is one more weight of the pairs' regression.
Source: ours; Laplace's approximation and the evidence of priors: MacKay 1992, https://doi.org/10.1162/neco.1992.4.5.720 (number: memory).
Deviations: not from a paper. The priors, the lapse, the probability of knowing nothing and the limit of exact covariances are [choice].
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp

from finegrain.ops.word_features import TokenType, type_features
from finegrain.types import chunks

VARIANCES = (1 / 16, 1 / 4, 1.0)
"""Prior variances of a type's score from pairs, nats^2."""
MARK_VARIANCES = (1.0, 4.0, 16.0)
"""Of its log-odds from marks: one word may decide a sentence."""
SPELLING = (0.0, 0.5)
"""Shares of the prior variance that types of like spelling have in common."""
LAPSE = 0.2
"""Probability of a mark, or of none, whatever the text says."""
BASE_VARIANCE = 100.0
"""Prior variance of the log-odds of a stretch without known words."""
IGNORANCE = 0.1
"""Prior probability that the labels say nothing, so that every score is 0."""
EXACT = 2000
"""Rows up to which covariances are exact (full Laplace). With more they are diagonal in features; determinants are exact for as many features."""
ROUGHLY = 1e-4
"""Tolerance of regressions that are compared on held-out pairs."""
NEGLIGIBLE = 1e-3
"""Posterior probability below which a prior is left out."""


class Labels(NamedTuple):
    """What a logistic regression learns."""

    share: Float[np.ndarray, " n"]
    """Probability that a row's label is 1: that the chosen answer is better, or that a stretch is good."""
    weight: Float[np.ndarray, " n"]
    """How often a row counts."""

    def take(self, rows: np.ndarray) -> "Labels":
        """Of some rows."""
        return Labels(self.share[rows], self.weight[rows])


class TokenTable(NamedTuple):
    """Posterior of the scores of all types."""

    mean: Float[np.ndarray, " V"]
    std: Float[np.ndarray, " V"]
    knowledge: float
    """Posterior probability that the labels say anything; means are shrunk by it."""


Moments = tuple[Float[np.ndarray, " V"], Float[np.ndarray, " V"]]
"""Mean and variance of every type's score over the posterior under one prior."""


class RidgeFit(NamedTuple):
    """A ridge regression with prior variance 1."""

    features: sparse.csr_array
    """(V, F), scaled by the prior standard deviation."""
    rows: sparse.csr_array
    """(n, F)"""
    weights: Float[np.ndarray, " F"]
    curvature: Float[np.ndarray, " n"]
    """Information that every row has about its prediction: minus the expected second derivative of its log-likelihood."""
    log_likelihood: float

    @property
    def scores(self) -> Float[np.ndarray, " V"]:
        """Of the types."""
        return np.asarray(self.features @ self.weights)


def fit_pairs(
    types: Sequence[TokenType], differences: sparse.csr_array, labels: Labels, rarity: np.ndarray, marks: TokenTable | None = None
) -> TokenTable:
    """Scores in nats from (n, V) counts of chosen answers minus those of rejected ones; `marks`: scores of the same types from marks.

    Marks count as one more feature, of root mean square 1 over the types they score and prior variance 1. rarity: `inverse_frequency`.
    """
    if not labels.weight.any():
        return TokenTable(np.zeros(len(types)), np.zeros(len(types)), 0.0)
    fits = [_regress(features, differences, labels) for features in _pair_features(types, rarity, marks)]
    shares = _posterior(fits, -np.log(2) * labels.weight.sum())
    table = _mix(shares, fits, lambda fit: (fit.scores, _variance(fit)))
    if marks is None or not marks.mean.any():
        return table
    worth = sum(share * fit.weights[-1] for share, fit in zip(shares, fits, strict=True))
    return table._replace(std=np.hypot(table.std, worth / _root_mean_square(marks.mean) * marks.std))


def fit_best_prior(
    types: Sequence[TokenType],
    differences: sparse.csr_array,
    labels: Labels,
    rarity: np.ndarray,
    held: Bool[np.ndarray, " n"],
    marks: TokenTable | None = None,
) -> Float[np.ndarray, " V"]:
    """Scores in nats as `fit_pairs` makes them, by one prior, the one under which the other pairs say most of those `held`; all 0 if none says any.

    Without deviations and evidence, whose cost grows with the cube of the pairs.
    """
    features = list(_pair_features(types, rarity, marks))
    kept, others = labels.take(np.flatnonzero(held)), labels.take(np.flatnonzero(~held))
    scores = (_regress(own, sparse.csr_array(differences[~held]), others, tolerance=ROUGHLY).scores for own in features)
    likelihoods = [_log_likelihood(differences[held] @ own, kept, 0.0) for own in scores]
    best = int(np.argmax(likelihoods))
    if likelihoods[best] <= -np.log(2) * kept.weight.sum():
        return np.zeros(len(types))
    return _regress(features[best], differences, labels, tolerance=ROUGHLY).scores


def fit_marks(types: Sequence[TokenType], counts: sparse.csr_array, marks: Labels, rarity: np.ndarray) -> TokenTable:
    """By how much each type changes the probability that a stretch is good, from (n, V) counts of marked stretches of text and their marks."""
    if np.ptp(marks.share) < 1e-9 or not marks.weight.any():
        return TokenTable(np.zeros(len(types)), np.zeros(len(types)), 0.0)
    with_base = sparse.csr_array(sparse.hstack([counts, np.ones((counts.shape[0], 1))]))
    fits = [
        _regress(sparse.csr_array(sparse.block_diag([own, [[np.sqrt(BASE_VARIANCE)]]])), with_base, marks, lapse=LAPSE)
        for own in _priors(types, rarity, MARK_VARIANCES)
    ]
    mean = float(np.average(marks.share, weights=marks.weight))
    constant = marks.weight @ (marks.share * np.log(mean) + (1 - marks.share) * np.log1p(-mean))
    table = _mix(_posterior(fits, float(constant)), fits, _change_of_chance)
    return TokenTable(table.mean[:-1], table.std[:-1], table.knowledge)


def _change_of_chance(fit: RidgeFit) -> Moments:
    """Of what `fit_marks` scores: the type's log-odds added to the mean of all stretches'. What all of them share, such as "it", is in the mean."""
    base = float((fit.rows @ fit.weights).mean())
    chance = expit(base + fit.scores)
    return chance - expit(base), np.square(chance * (1 - chance)) * _variance(fit)


def _pair_features(types: Sequence[TokenType], rarity: np.ndarray, marks: TokenTable | None) -> Iterator[sparse.csr_array]:
    """Those of the priors, with scores of marks, if they say anything, as one more."""
    for features in _priors(types, rarity, VARIANCES):
        if marks is None or not marks.mean.any():
            yield features
        else:
            scores = sparse.csr_array((marks.mean / _root_mean_square(marks.mean))[:, None])
            yield sparse.csr_array(sparse.hstack([features, scores]))


def _root_mean_square(scores: np.ndarray) -> float:
    """Over those that are not 0."""
    return float(np.sqrt(np.mean(np.square(scores[scores != 0]))))


def _priors(types: Sequence[TokenType], rarity: np.ndarray, variances: Sequence[float]) -> Iterator[sparse.csr_array]:
    """Features of types (V, F) whose products are prior covariances; with rarity, frequent types are expected to say less."""
    for spelling in SPELLING:
        features = type_features(types, spelling=spelling)
        for scale, variance in product((np.ones(len(types)), rarity), variances):
            yield sparse.csr_array(sparse.diags_array(np.sqrt(variance) * scale) @ features)


def inverse_frequency(documents: sparse.csr_array) -> Float[np.ndarray, " V"]:
    """1 - log(documents with the type) / log(all documents), from (n, V) counts; 0 for a type of all of them, 1 for one of a single one."""
    count = documents.shape[0]
    present = np.maximum((documents > 0).sum(0), 1)
    return np.asarray(1 - np.log(present) / np.log(count))


def _log_chance(logits: np.ndarray, lapse: float) -> np.ndarray:
    """log(lapse + (1 - 2 lapse) sigma(logits))."""
    return np.asarray(np.logaddexp(np.log(lapse) if lapse else -np.inf, np.log1p(-2 * lapse) + log_expit(logits)))


def _log_slope(logits: np.ndarray, lapse: float) -> np.ndarray:
    """Of the derivative of that probability."""
    return np.asarray(np.log1p(-2 * lapse) + log_expit(logits) + log_expit(-logits))


def _log_likelihood(logits: np.ndarray, labels: Labels, lapse: float) -> float:
    """Of labels that are 1 with probability lapse + (1 - 2 lapse) sigma(logits)."""
    return float(labels.weight @ (labels.share * _log_chance(logits, lapse) + (1 - labels.share) * _log_chance(-logits, lapse)))


def _regress(features: sparse.csr_array, design: sparse.csr_array, labels: Labels, *, lapse: float = 0.0, tolerance: float = 1e-6) -> RidgeFit:
    """Logistic, of (n, V) counts."""
    rows = sparse.csr_array(design @ features)
    total = labels.weight.sum() or 1.0

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = rows @ weights
        slope = _log_slope(logits, lapse)
        pull = labels.share * np.exp(slope - _log_chance(logits, lapse)) - (1 - labels.share) * np.exp(slope - _log_chance(-logits, lapse))
        value = 0.5 * weights @ weights - _log_likelihood(logits, labels, lapse)
        return float(value / total), (weights - rows.T @ (labels.weight * pull)) / total

    options = {"maxiter": 2000, "gtol": tolerance, "ftol": 64 * np.finfo(float).eps}
    weights = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B", options=options).x
    logits = rows @ weights
    curvature = labels.weight * np.exp(2 * _log_slope(logits, lapse) - _log_chance(logits, lapse) - _log_chance(-logits, lapse))
    return RidgeFit(features, rows, weights, curvature, _log_likelihood(logits, labels, lapse))


def _posterior(fits: Sequence[RidgeFit], nothing: float) -> Float[np.ndarray, " P"]:
    """Probability of every prior by its evidence; nothing: log-likelihood where all scores are 0, a prior of its own."""
    evidence = np.array([_evidence(fit) for fit in fits]) - np.log(len(fits)) + np.log1p(-IGNORANCE)
    return np.asarray(np.exp(evidence - logsumexp([*evidence, nothing + np.log(IGNORANCE)])))


def _mix(shares: np.ndarray, fits: Sequence[RidgeFit], moments: Callable[[RidgeFit], Moments]) -> TokenTable:
    """The types' mean and deviation over all priors."""
    mean, square = np.zeros((2, fits[0].features.shape[0]))
    for share, fit in zip(shares, fits, strict=True):
        if share > NEGLIGIBLE:
            own, variance = moments(fit)
            mean += share * own
            square += share * (own**2 + variance)
    return TokenTable(mean, np.sqrt(np.maximum(square - mean**2, 0.0)), float(shares.sum()))


def _evidence(fit: RidgeFit) -> float:
    """Laplace's approximation of the log-probability of the labels under the prior."""
    return float(fit.log_likelihood - 0.5 * np.square(fit.weights).sum() - 0.5 * _log_determinant(fit))


def _log_determinant(fit: RidgeFit) -> float:
    """Of I + B^(1/2) X X' B^(1/2); with more than `EXACT` rows exact for as many features, those that the rows say most of, the rest as if alone."""
    weighted = _weighted(fit.rows, fit.curvature)
    if weighted.shape[0] > EXACT:
        known = weighted.power(2).sum(0)
        most = np.sort(np.argsort(known)[-EXACT:])
        rest = np.log1p(np.delete(known, most)).sum()
        gram = (weighted[:, most].T @ weighted[:, most]).toarray()
        return float(np.linalg.slogdet(np.eye(len(gram)) + gram)[1] + rest)
    return float(np.linalg.slogdet(_by_rows(weighted))[1])


def _weighted(rows: sparse.csr_array, curvature: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array(sparse.diags_array(np.sqrt(curvature)) @ rows)


def _by_rows(weighted: sparse.csr_array) -> np.ndarray:
    """I + B^(1/2) X X' B^(1/2), dense."""
    return np.asarray(np.eye(weighted.shape[0]) + (weighted @ weighted.T).toarray())


def _variance(fit: RidgeFit) -> Float[np.ndarray, " V"]:
    """Posterior variance of every type's score."""
    squares = fit.features.power(2)
    weighted = _weighted(fit.rows, fit.curvature)
    if fit.rows.shape[0] > EXACT:
        return np.asarray(squares @ (1 / (1 + weighted.power(2).sum(0))))
    lower = np.linalg.cholesky(_by_rows(weighted))
    explained = [
        np.square(solve_triangular(lower, (weighted @ fit.features[part].T).toarray(), lower=True)).sum(0)
        for part in chunks(fit.features.shape[0], 4096)
    ]
    return np.asarray(np.maximum(squares.sum(1) - np.concatenate(explained), 0.0))
