"""Several scorers' saved scores as one: each standardised, then combined.

Source: analysis scripts of RewardBench, https://arxiv.org/abs/2403.13787: mean, minimum and mean - std after standardising each model.
Deviations: the weight of disagreement `k` is 1 there and a setting here. Aggregates for optimisers are in `finegrain.ops.aggregate`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from finegrain.checked import NonNegativeFloat, checked
from finegrain.errors import DataError

Members = Float[np.ndarray, "M N"]
Combined = Float[np.ndarray, " N"]


@dataclass(frozen=True, kw_only=True)
class MemberMean:
    """The mean over the members."""

    def __call__(self, members: Members) -> Combined:
        """One score per answer."""
        mean: Combined = members.mean(0)
        return mean


@dataclass(frozen=True, kw_only=True)
class MemberMinimum:
    """The lowest score of the members."""

    def __call__(self, members: Members) -> Combined:
        """One score per answer."""
        least: Combined = members.min(0)
        return least


@dataclass(frozen=True, kw_only=True)
@checked
class MeanMinusStd:
    """The mean minus a penalty for disagreement."""

    k: NonNegativeFloat = 1.0
    """Weight of a standard deviation between members."""

    def __call__(self, members: Members) -> Combined:
        """One score per answer; the standard deviation is the population's (divides by M)."""
        priced: Combined = members.mean(0) - self.k * members.std(0)
        return priced


@dataclass(frozen=True, kw_only=True)
@checked
class MeanMinusVariance:
    """The mean minus a penalty for the variance: uncertainty-weighted optimisation (UWO) of Coste et al. 2023, https://arxiv.org/abs/2310.02743."""

    k: NonNegativeFloat = 0.5
    """Weight of the variance between members."""

    def __call__(self, members: Members) -> Combined:
        """One score per answer; the variance is the population's (divides by M), as in that paper's best-of-n."""
        priced: Combined = members.mean(0) - self.k * members.var(0)
        return priced


Combiner = MemberMean | MemberMinimum | MeanMinusStd | MeanMinusVariance


def standardise(chosen: Members, rejected: Members) -> tuple[Members, Members]:
    """Standardises both sides of every member: minus its mean, divided by its standard deviation, both over both sides."""
    both = np.concatenate([chosen, rejected], axis=1)
    spread = both.std(axis=1, keepdims=True)
    if not np.isfinite(both).all():
        raise DataError("scores must be finite to be combined; drop the rows that are not, or fix the scorer")
    if (spread == 0).any():
        raise DataError(f"member {int(np.flatnonzero(spread == 0)[0])} gives every answer the same score and cannot be standardised; leave it out")
    centre = both.mean(axis=1, keepdims=True)
    return (chosen - centre) / spread, (rejected - centre) / spread


def combine_members(chosen: Members, rejected: Members, combiner: Combiner) -> tuple[Combined, Combined]:
    """Scores of the chosen and of the rejected answers from several members' scores."""
    good, bad = standardise(chosen, rejected)
    return combiner(good), combiner(bad)
