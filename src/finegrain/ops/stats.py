"""Numbers shown to people, with their intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean with its 95 % Student-t interval; the interval is None where fewer than two values exist."""

    mean: float
    low: float | None
    high: float | None
    rows: int


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of independent values and the Student-t interval of that mean."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return Interval(float(array.mean()) if len(array) else float("nan"), None, None, len(array))
    half = float(stats.t.ppf(0.5 + level / 2, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5)
    mean = float(array.mean())
    return Interval(mean, mean - half, mean + half, len(array))
