"""Reported numbers with their intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from finegrain.types import Json


class Interval(NamedTuple):
    """A mean with its 95 % Student-t interval; the interval is None with fewer than two values."""

    mean: float
    low: float | None
    high: float | None
    rows: int

    def as_json(self) -> Json:
        """mean, low, high and rows by name, as every result writes them."""
        return self._asdict()


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of independent values and the Student-t interval of that mean."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return Interval(float(array.mean()) if len(array) else float("nan"), None, None, len(array))
    half = float(stdtrit(len(array) - 1, 0.5 + level / 2) * array.std(ddof=1) / len(array) ** 0.5)
    mean = float(array.mean())
    return Interval(mean, mean - half, mean + half, len(array))


def sum_of_ratios(parts: Sequence[tuple[float, np.ndarray, np.ndarray]], level: float = 0.95) -> Interval:
    """sum_k c_k * sum(values_k) / sum(counts_k) over the same rows, (c, values (N,), counts (N,)) each: the form of a loss with several terms.

    The interval is Student's over rows of the linearised estimate (delta method); for one term with counts of 1 it is `mean_interval`.
    A term in which nothing counts is 0.
    """
    whole = np.zeros(len(parts[0][1]) if parts else 0)
    total = 0.0
    for coefficient, values, counts in parts:
        denominator = float(np.sum(counts, dtype=float))
        if denominator:
            ratio = float(np.sum(values, dtype=float)) / denominator
            total += coefficient * ratio
            whole += coefficient * (np.asarray(values, dtype=float) - ratio * np.asarray(counts, dtype=float)) * len(whole) / denominator
    if not len(whole):
        return Interval(float("nan"), None, None, 0)
    spread = mean_interval(whole, level)
    return Interval(total, None if spread.low is None else total + spread.low, None if spread.high is None else total + spread.high, len(whole))


def difference_interval(left: Sequence[float] | np.ndarray, right: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of left minus mean of right, of two independent groups: Welch's interval; NaN where a group is empty."""
    one, other = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    rows = len(one) + len(other)
    if not len(one) or not len(other):
        return Interval(float("nan"), None, None, rows)
    mean = float(one.mean() - other.mean())
    if min(len(one), len(other)) < 2:
        return Interval(mean, None, None, rows)
    parts = [float(group.var(ddof=1)) / len(group) for group in (one, other)]
    if not sum(parts):
        return Interval(mean, mean, mean, rows)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(group) - 1) for part, group in zip(parts, (one, other), strict=True))
    half = float(stdtrit(freedom, 0.5 + level / 2)) * sum(parts) ** 0.5
    return Interval(mean, mean - half, mean + half, rows)


def count_below(values: Float[np.ndarray, " N"], others: Float[np.ndarray, " M"]) -> Float[np.ndarray, " N"]:
    """How many of the others lie below each value, ties counted half: Mann-Whitney's placements; NaN for all where one is NaN."""
    if np.isnan(values).any() or np.isnan(others).any():
        return np.full(len(values), np.nan)
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
