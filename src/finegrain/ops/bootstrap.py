"""Percentile bootstrap: the interval of a number that has no formula for one."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from finegrain.checked import Seed, checked
from finegrain.errors import UsageError
from finegrain.ops.stats import Interval

Statistic = Callable[[Int[np.ndarray, " _"]], float]
"""From the positions of the drawn rows to a number."""


@dataclass(frozen=True, kw_only=True)
@checked
class Bootstrap:
    """Repeated resampling of rows with replacement."""

    resamples: int = 1000
    """Number of resamples; the interval's bounds are their quantiles."""
    seed: Seed = 0
    """Seed of the resamples: the same seed gives the same interval."""
    level: float = 0.95
    """Nominal coverage."""

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise UsageError(f"resamples must be at least 100 for meaningful bounds, got {self.resamples}")
        if not 0 < self.level < 1:
            raise UsageError(f"level must be a probability in (0, 1), got {self.level}")

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
