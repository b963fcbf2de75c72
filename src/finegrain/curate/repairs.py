"""Repairs of pairs by the strength of their labels: columns of the pair loss, with the reason for each row.

Source: Wang et al. 2024, https://arxiv.org/abs/2401.06080, section 2.2 (flip, margin, soft label).
Deviations: margins are clipped at a percentile [choice]; a flipped pair's margin is the strength of the flipped pair, -u [choice]; the
smoothing of doubtful pairs is 0.1, a common value; the paper's was not read.
"""

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float

from finegrain.checked import Range, Share, ShareBelowOne, checked
from finegrain.curate.strength import Strength

Numbers = Float[np.ndarray, " N"]


@dataclass(frozen=True)
class Repaired:
    """Columns for the pair loss (`loss:bradley-terry`), and the reasons."""

    columns: dict[str, Numbers]
    """flip (1: exchange the answers), label_prob (that the chosen answer is better), margin: each column present has a value for every row."""
    reasons: list[str]
    """A sentence per pair; empty where the pair is unchanged."""


@dataclass(frozen=True, kw_only=True)
@checked
class Flip:
    """Exchange the answers of the pairs with the lowest strength."""

    share: ShareBelowOne = 0.2
    """Share of all pairs; it must be estimated, and flipping more than the wrong labels hurts."""

    def rows(self, strength: Strength) -> Bool[np.ndarray, " N"]:
        """The flipped pairs: exactly the share, rounded; of equal strengths the first ones."""
        found = np.zeros(len(strength.mean), dtype=bool)
        found[np.argsort(strength.mean, kind="stable")[: round(self.share * len(found))]] = True
        return found

    def __call__(self, strength: Strength) -> Repaired:
        """flip."""
        flipped = self.rows(strength)
        return Repaired({"flip": flipped.astype(float)}, _reasons(flipped, f"flipped: among the {self.share:.0%} with the lowest strength"))


@dataclass(frozen=True, kw_only=True)
@checked
class Margin:
    """Require a difference of scores as large as the strength; a negative strength is a negative margin."""

    percentile: Annotated[float, Range(0.0, 100.0, low_open=True)] = 95.0
    """Percentile of |u| at which larger margins are clipped."""

    def clipped(self, strength: Strength) -> tuple[Numbers, Bool[np.ndarray, " N"]]:
        """Strengths clipped to +- the percentile, and which ones were outside."""
        bound = float(np.percentile(np.abs(strength.mean), self.percentile))
        return strength.mean.clip(-bound, bound), np.abs(strength.mean) > bound

    def __call__(self, strength: Strength) -> Repaired:
        """margin."""
        margin, cut = self.clipped(strength)
        return Repaired({"margin": margin}, _reasons(cut, "margin clipped to the percentile"))


@dataclass(frozen=True, kw_only=True)
@checked
class FlipMargin:
    """Both: the margin of a flipped pair is that of the exchanged answers."""

    flip: Flip = field(default_factory=Flip)
    margin: Margin = field(default_factory=Margin)

    def __call__(self, strength: Strength) -> Repaired:
        """flip and margin."""
        flipped, margined = self.flip(strength), self.margin(strength)
        sign = 1 - 2 * flipped.columns["flip"]
        return _both(flipped, Repaired({"margin": sign * margined.columns["margin"]}, margined.reasons))


@dataclass(frozen=True, kw_only=True)
@checked
class Soft:
    """Allow for a wrong label where the strength is negative."""

    smoothing: Share = 0.1
    """Probability that such a label is wrong."""

    def __call__(self, strength: Strength) -> Repaired:
        """label_prob."""
        found = np.where(strength.negative, 1 - self.smoothing, 1.0)
        return Repaired({"label_prob": found}, _reasons(strength.negative, f"label probability {1 - self.smoothing:g}: negative strength"))


@dataclass(frozen=True, kw_only=True)
@checked
class SoftMargin:
    """Both."""

    soft: Soft = field(default_factory=Soft)
    margin: Margin = field(default_factory=Margin)

    def __call__(self, strength: Strength) -> Repaired:
        """label_prob and margin."""
        return _both(self.soft(strength), self.margin(strength))


Repair = Margin | Flip | FlipMargin | Soft | SoftMargin


def _reasons(rows: Bool[np.ndarray, " N"], sentence: str) -> list[str]:
    return [sentence if row else "" for row in rows]


def _both(first: Repaired, second: Repaired) -> Repaired:
    reasons = ["; ".join(filter(None, both)) for both in zip(first.reasons, second.reasons, strict=True)]
    return Repaired({**first.columns, **second.columns}, reasons)
