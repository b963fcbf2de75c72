"""Percentile bootstrap: the interval of a number that has no formula for one."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int

from finegrain.checked import MOST, Range, Seed, checked
from finegrain.ops.stats import Interval

Statistic = Callable[[Int[np.ndarray, " _"]], float]
"""From the positions of the drawn rows to a number."""
Statistics = Callable[[Int[np.ndarray, "R _"]], Float[np.ndarray, " R"]]
"""The same for many draws, one a row."""
AT_ONCE = 1 << 16
"""Positions drawn at a time."""


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

    def __call__(self, statistic: Statistic, strata: Int[np.ndarray, " _"], of_draws: Statistics | None = None) -> Interval:
        """The statistic of all rows with its percentile interval; rows are drawn within each stratum, so the strata keep their sizes.

        No bounds with fewer than two rows, or where the number is undefined in some resample. `of_draws` gives the numbers of many draws sooner.
        """
        rows = len(strata)
        value = statistic(np.arange(rows)) if rows else math.nan
        if rows < 2:
            return Interval(value, None, None, rows)
        groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
        drawn = np.concatenate([of_draws(some) if of_draws else [statistic(own) for own in some] for some in self._draws(groups)])
        if not np.isfinite(drawn).all():
            return Interval(value, None, None, rows)
        low, high = np.quantile(drawn, [0.5 - self.level / 2, 0.5 + self.level / 2])
        return Interval(value, float(low), float(high), rows)

    def _draws(self, groups: Sequence[Int[np.ndarray, " _"]]) -> Iterator[Int[np.ndarray, "_ _"]]:
        """The positions drawn in each resample, some resamples at a time; all numbers come from one stream, however they are cut."""
        generator = np.random.default_rng(self.seed)
        at_once = max(1, AT_ONCE // sum(map(len, groups)))
        for done in range(0, self.resamples, at_once):
            count = min(at_once, self.resamples - done)
            if len(groups) == 1:
                yield groups[0][generator.integers(len(groups[0]), size=(count, len(groups[0])))]
            else:
                draws = ([group[generator.integers(len(group), size=len(group))] for group in groups] for _ in range(count))
                yield np.stack([np.concatenate(draw) for draw in draws])
