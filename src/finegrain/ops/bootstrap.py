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
"""From the places of the rows that were drawn to a number."""


@dataclass(frozen=True, kw_only=True)
@checked
class Bootstrap:
    """Rows drawn with replacement, again and again."""

    resamples: int = 1000
    """Draws; the interval's bounds are quantiles over them."""
    seed: Seed = 0
    """Of the draws: the same seed gives the same interval."""
    level: float = 0.95
    """Coverage that is aimed at."""

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise UsageError(f"resamples must be at least 100 for bounds that mean anything, got {self.resamples}")
        if not 0 < self.level < 1:
            raise UsageError(f"level is a probability in (0, 1), got {self.level}")

    def __call__(self, statistic: Statistic, strata: Int[np.ndarray, " _"]) -> Interval:
        """The statistic of all rows with its percentile interval; rows are drawn within each stratum, whose sizes so stay as they are.

        No bounds where fewer than two rows exist, or where the number does not exist in some resample.
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
