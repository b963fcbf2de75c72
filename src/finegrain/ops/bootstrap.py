"""Percentile bootstrap: the interval of a number that has no formula for one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Int

from finegrain.checked import MOST, Range, Seed, checked
from finegrain.ops.stats import Interval

Statistic = Callable[[Int[np.ndarray, " _"]], float]
"""From the positions of the drawn rows to a number."""


@dataclass(frozen=True, kw_only=True)
@checked
class Bootstrap:
    """Repeated resampling of rows with replacement."""

    resamples: Annotated[int, Range(100.0, MOST)] = 1000
    """Number of resamples; the interval's bounds are their quantiles."""
    seed: Seed = 0
    """Seed of the resamples: the same seed gives the same interval."""
    level: Annotated[float, Range(0.0, 1.0, low_open=True, high_open=True)] = 0.95
    """Nominal coverage."""

    def __call__(self, statistic: Statistic, strata: Int[np.ndarray, " _"]) -> Interval:
        """The statistic of all rows with its percentile interval; rows are drawn within each stratum, so the strata keep their sizes.

        No bounds with fewer than two rows, or where the number is undefined in some resample.
        """
        rows = len(strata)
        value = statistic(np.arange(rows)) if rows else math.nan
        if rows < 2:
            return Interval(value, None, None, rows)
        generator = np.random.default_rng(self.seed)
        groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
        drawn = [
            statistic(np.concatenate([group[generator.integers(len(group), size=len(group))] for group in groups])) for _ in range(self.resamples)
        ]
        if not np.isfinite(drawn).all():
            return Interval(value, None, None, rows)
        low, high = np.quantile(drawn, [0.5 - self.level / 2, 0.5 + self.level / 2])
        return Interval(value, float(low), float(high), rows)
