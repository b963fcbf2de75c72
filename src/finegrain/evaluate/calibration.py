"""Calibration of probabilities: reliability, expected calibration error, negative log-likelihood, Brier score.

Source: expected calibration error with equal-width bins: Guo et al. 2017, https://arxiv.org/abs/1706.04599, eq. 3 [memory]; Brier 1950.
Deviations: none. Binning of a pair's confidence into [1/2, 1] is a [choice].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from finegrain.checked import checked
from finegrain.errors import DataError, UsageError
from finegrain.evaluate.accuracy import finite
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
    """Stretches of confidence of the same width; empty ones do not appear."""

    bins: int = 10
    """Stretches between `low` and 1."""
    low: float = 0.5
    """Smallest confidence there can be: 1/2 for the preferred of two answers, 0 for the probability of an event."""

    def __post_init__(self) -> None:
        _check_bins(self.bins)
        if not 0 <= self.low < 1:
            raise UsageError(f"low is the smallest confidence there can be, in [0, 1), got {self.low}")

    def __call__(self, confidence: Probabilities) -> Int[np.ndarray, " N"]:
        """Number of each row's bin; a bound belongs to the bin above it."""
        place: Int[np.ndarray, " N"] = np.clip(((confidence - self.low) / (1 - self.low) * self.bins).astype(int), 0, self.bins - 1)
        return place


@dataclass(frozen=True, kw_only=True)
@checked
class EqualCount:
    """Rows sorted by confidence and cut into as equal numbers as rows of equal confidence, which stay together, allow."""

    bins: int = 10
    """Groups of rows."""

    def __post_init__(self) -> None:
        _check_bins(self.bins)

    def __call__(self, confidence: Probabilities) -> Int[np.ndarray, " N"]:
        """Number of each row's bin."""
        first = np.searchsorted(np.sort(confidence), confidence, side="left")
        return (first * self.bins) // max(1, len(confidence))


Binning = EqualWidth | EqualCount


class Calibration(NamedTuple):
    """How well calibrated the probabilities are."""

    error: Interval
    """Expected calibration error: mean over rows of |accuracy - confidence| of their bin. Biased upwards where bins are small."""
    bins: Sequence[Bin]
    """The reliability diagram, lowest confidence first."""
    negative_log_likelihood: Interval
    """Mean of -log of the probability of what happened, nats."""
    brier: Interval
    """Mean squared distance of the probability from what happened."""


def preference_probability(chosen: Float[np.ndarray, " N"], rejected: Float[np.ndarray, " N"]) -> Probabilities:
    """sigma(score of chosen - score of rejected): what a Bradley-Terry model says of the label it was given."""
    probability: Probabilities = np.exp(-np.logaddexp(0.0, rejected - chosen))
    return probability


def pair_calibration(chosen: Float[np.ndarray, " N"], rejected: Float[np.ndarray, " N"], binning: Binning | None = None) -> Calibration:
    """Calibration of a Bradley-Terry model on pairs: confidence is the probability of the answer it prefers. A tie has confidence 1/2, half right."""
    probability = preference_probability(finite(chosen), finite(rejected))
    right = np.where(chosen == rejected, 0.5, (chosen > rejected).astype(float))
    error, bins = _reliability(np.maximum(probability, 1 - probability), right, binning or EqualWidth())
    surprise = np.logaddexp(0.0, rejected - chosen)
    return Calibration(error, bins, mean_interval(surprise), mean_interval(np.square(1 - probability)))


def event_calibration(probability: Probabilities, happened: Outcomes, binning: Binning | None = None) -> Calibration:
    """Calibration of the probability of an event, say that a token is wrong. A certain miss has infinite surprise, and it is not hidden."""
    if not ((probability >= 0) & (probability <= 1)).all():
        raise DataError("probabilities must lie in [0, 1]; pass scores through a sigmoid first")
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
        return float(np.abs(np.bincount(place[drawn], weights=gap[drawn])).sum() / len(drawn))

    bins = [Bin(float(confidence[members].mean()), wilson(right[members])) for members in rows]
    return Bootstrap()(error, np.zeros(len(confidence), dtype=int)), bins


def _check_bins(bins: int) -> None:
    if bins < 1:
        raise UsageError(f"bins counts groups of rows and must be at least 1, got {bins}")
