"""Calibration of probabilities: reliability, expected calibration error, negative log-likelihood, Brier score.

Source: expected calibration error with equal-width bins: Guo et al. 2017, https://arxiv.org/abs/1706.04599, eq. 3 [memory]; Brier 1950.
Deviations: none. Binning of a pair's confidence into [1/2, 1] is a [choice].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from finegrain.checked import PositiveInt, ShareBelowOne, checked
from finegrain.errors import DataError
from finegrain.evaluate.accuracy import TieShares
from finegrain.ops.bootstrap import Bootstrap
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import Interval, mean_interval

Probabilities = Float[np.ndarray, " N"]
Outcomes = Bool[np.ndarray, " N"]


class Bin(NamedTuple):
    """Rows of similar confidence."""

    confidence: float
    """Mean confidence of the rows."""
    accuracy: Interval
    """Share of them that are right: equal to the confidence in a calibrated model."""


@dataclass(frozen=True, kw_only=True)
@checked
class EqualWidth:
    """Intervals of confidence of the same width; empty ones are left out."""

    bins: PositiveInt = 10
    """Number of intervals between `low` and 1."""
    low: ShareBelowOne = 0.5
    """Smallest possible confidence: 1/2 for the preferred of two answers, 0 for the probability of an event."""

    def __call__(self, confidence: Probabilities) -> Int[np.ndarray, " N"]:
        """Number of each row's bin; a boundary belongs to the bin above it."""
        place: Int[np.ndarray, " N"] = np.clip(((confidence - self.low) / (1 - self.low) * self.bins).astype(int), 0, self.bins - 1)
        return place


@dataclass(frozen=True, kw_only=True)
@checked
class EqualCount:
    """Rows sorted by confidence and cut into bins of nearly equal size; rows of equal confidence stay together."""

    bins: PositiveInt = 10
    """Number of bins."""

    def __call__(self, confidence: Probabilities) -> Int[np.ndarray, " N"]:
        """Number of each row's bin."""
        return np.searchsorted(np.sort(confidence), confidence) * self.bins // len(confidence)


Binning = EqualWidth | EqualCount


class Calibration(NamedTuple):
    """How well calibrated the probabilities are."""

    error: Interval
    """Expected calibration error: mean over rows of |accuracy - confidence| of their bin. Biased upwards where bins are small."""
    bins: Sequence[Bin]
    """The reliability diagram, lowest confidence first."""
    negative_log_likelihood: Interval
    """Mean of -log of the probability of the outcome, nats."""
    brier: Interval
    """Mean squared distance of the probability from the outcome."""


def preference_probability(chosen: Float[np.ndarray, " N"], rejected: Float[np.ndarray, " N"]) -> Probabilities:
    """sigma(score of chosen - score of rejected): a Bradley-Terry model's probability of the label."""
    probability: Probabilities = np.exp(-np.logaddexp(0.0, rejected - chosen))
    return probability


def pair_calibration(chosen: Float[np.ndarray, " N"], rejected: Float[np.ndarray, " N"], binning: Binning | None = None) -> Calibration:
    """Calibration of a Bradley-Terry model on pairs: confidence is the probability of the answer it prefers. A tie has confidence 1/2, half right."""
    right = TieShares()(chosen, rejected)
    probability = preference_probability(chosen, rejected)
    error, bins = _reliability(np.maximum(probability, 1 - probability), right, binning or EqualWidth())
    surprise = np.logaddexp(0.0, rejected - chosen)
    return Calibration(error, bins, mean_interval(surprise), mean_interval(np.square(1 - probability)))


def event_calibration(probability: Probabilities, happened: Outcomes, binning: Binning | None = None) -> Calibration:
    """Calibration of the probability of an event, such as that a token is wrong. A certain miss has infinite surprise, which is kept."""
    if not ((probability >= 0) & (probability <= 1)).all():
        raise DataError("probabilities must be in [0, 1]; apply a sigmoid to scores first")
    error, bins = _reliability(probability, happened.astype(float), binning or EqualWidth(low=0.0))
    given = np.where(happened, probability, 1 - probability)
    with np.errstate(divide="ignore"):
        surprise = -np.log(given)
    mean = mean_interval(surprise) if np.isfinite(surprise).all() else Interval(float("inf"), None, None, len(surprise))
    return Calibration(error, bins, mean, mean_interval(np.square(1 - given)))


def _reliability(confidence: Probabilities, right: Float[np.ndarray, " N"], binning: Binning) -> tuple[Interval, list[Bin]]:
    """The error with a bootstrap interval over rows, and the bins."""
    place = binning(confidence)
    gap = right - confidence
    rows = [np.flatnonzero(place == number) for number in np.unique(place)]

    def error(drawn: Int[np.ndarray, " _"]) -> float:
        return float(errors(drawn[None])[0])

    def errors(draws: Int[np.ndarray, "_ _"]) -> Float[np.ndarray, " _"]:
        return calibration_errors(place[draws], gap[draws])

    bins = [Bin(float(confidence[members].mean()), wilson(right[members])) for members in rows]
    return Bootstrap()(error, np.zeros(len(confidence), dtype=int), errors), bins


def calibration_errors(place: Int[np.ndarray, "R N"], gap: Float[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
    """The expected calibration error of each row: numbers of bins, and how far the answer's correctness is above its confidence."""
    width = int(place.max()) + 1
    bins = (place + width * np.arange(len(place))[:, None]).ravel()
    sums = np.abs(np.bincount(bins, weights=gap.ravel(), minlength=width * len(place))).reshape(len(place), width)
    found, sizes = np.zeros(len(place)), place.max(1) + 1
    for size in np.unique(sizes):  # the order in which numbers are added up depends on how many there are
        found[sizes == size] = sums[sizes == size, :size].sum(1) / place.shape[1]
    return found
