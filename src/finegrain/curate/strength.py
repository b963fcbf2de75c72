"""Strength of a preference: mean and standard deviation of several reward models' margins of each pair.

Source: Wang et al. 2024, https://arxiv.org/abs/2401.06080, section 2.1 (strength and its deviation over 10 models).
Deviations: members are scaled to a common unit before they are averaged [choice]; a pair may be scored by some of the members only.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from finegrain.errors import DataError


@dataclass(frozen=True)
class Strength:
    """The members' margins of N pairs, summarised."""

    mean: Float[np.ndarray, " N"]
    """u, in the members' units of score: negative where they prefer the rejected answer."""
    std: Float[np.ndarray, " N"]
    """s, over the members that voted (ddof 0); 0 for a single vote."""
    votes: Int[np.ndarray, " N"]
    """Number of members that scored the pair."""

    @property
    def negative(self) -> np.ndarray:
        """(N,) bool: the members' mean contradicts the label."""
        return self.mean < 0


def compute_strength(margins: Float[np.ndarray, "M N"]) -> Strength:
    """Mean and standard deviation over members of score(chosen) - score(rejected); NaN where a member did not score a pair.

    A member's margins are multiplied by (mean standard deviation of all members) / (its own), so that all count equally.
    """
    voted = np.isfinite(margins)
    votes = voted.sum(0)
    if not votes.all():
        raise DataError(f"no member scored pair {int(np.flatnonzero(votes == 0)[0])} with a finite margin; every pair needs one")
    scales = np.array([row[seen].std() if seen.any() else 0.0 for row, seen in zip(margins, voted, strict=True)])
    if not (scales > 0).all():
        raise DataError(f"member {int(np.argmin(scales))} gives every pair the same margin, so it cannot measure their strength; leave it out")
    scaled = np.where(voted, margins, np.nan) * (scales.mean() / scales)[:, None]
    return Strength(np.nanmean(scaled, 0), np.nanstd(scaled, 0), votes)


def deciles(values: Float[np.ndarray, " N"]) -> list[float]:
    """The eleven bounds of ten equal-sized groups, from the smallest value to the largest."""
    return [float(bound) for bound in np.quantile(values, np.linspace(0, 1, 11))]
