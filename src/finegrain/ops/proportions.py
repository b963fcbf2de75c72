"""Intervals of shares: means of values in [0, 1], which need no standard deviation and stay inside [0, 1]."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from finegrain.ops.stats import Interval


def wilson(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of independent values in [0, 1] with Wilson's score interval; bounds are None without values.

    Values between 0 and 1 (shared credit for ties) vary less than a coin of the same mean, so the interval is then too wide, never too narrow.
    """
    array = np.asarray(values, dtype=float)
    rows = len(array)
    if rows == 0:
        return Interval(float("nan"), None, None, 0)
    mean, z = float(array.mean()), float(ndtri(0.5 + level / 2))
    centre = (mean + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(mean * (1 - mean) / rows + (z / (2 * rows)) ** 2)
    return Interval(mean, max(0.0, min(centre - half, mean)), min(1.0, max(centre + half, mean)), rows)


class WeightedShare(NamedTuple):
    """One summand of a weighted mean."""

    weight: float
    share: Interval


def combine_shares(parts: Sequence[WeightedShare]) -> Interval:
    """Weighted mean of independent shares; its distance to either bound is the root of the summed squares of the parts' own.

    This is the square-and-add rule (MOVER), which keeps the bounds inside [0, 1] where the parts' are. Weights need not sum to 1. A part
    without an interval gives a mean without one.
    """
    total = sum(part.weight for part in parts)
    if not parts or total <= 0:
        return Interval(float("nan"), None, None, 0)
    mean = sum(part.weight * part.share.mean for part in parts) / total
    rows = sum(part.share.rows for part in parts)
    down = up = 0.0
    for weight, (value, low, high, _) in parts:
        if low is None or high is None:
            return Interval(mean, None, None, rows)
        down, up = down + (weight * (value - low) / total) ** 2, up + (weight * (high - value) / total) ** 2
    return Interval(mean, mean - math.sqrt(down), mean + math.sqrt(up), rows)
