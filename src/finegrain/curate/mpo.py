"""Pairs split by how clearly a reward model separates them: easy ones for offline training, the prompts of hard ones for online training.

    D = r(x, chosen) - r(x, rejected);   easy: |D| > g;   hard: |D| <= g;   contradicted: D < -g, which the two sets do not keep by default

Source: Gou and Nguyen 2024, MPO, https://arxiv.org/abs/2403.19443 (abstracts of its versions; thresholds and tables could not be read).
Deviations: margins are those of models that did not train on the pair [choice]; by default g is a quantile of |D| [choice]. What becomes of
contradicted pairs is not said in the abstracts: they are dropped and counted [choice], or kept as labelled, or swapped.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float

from finegrain.checked import NonNegativeFloat, Share, checked
from finegrain.curate.votes import Votes, Whole, split_in_halves
from finegrain.types import Json

EASY, HARD, DROPPED, UNSCORED = "easy", "hard", "contradicted", "unscored"


@dataclass(frozen=True, kw_only=True)
@checked
class Threshold:
    """g as a number."""

    value: NonNegativeFloat = 1.0
    """In units of the reward [choice]; at 0 only exact ties are hard."""

    def __call__(self, sizes: Float[np.ndarray, " N"]) -> float:
        """g."""
        return self.value


@dataclass(frozen=True, kw_only=True)
@checked
class Quantile:
    """g as the size of margin that a share of the pairs does not exceed."""

    share: Share = 0.5
    """Of the pairs that are hard [choice]; 0: none is, ties neither; 1: all are."""

    def __call__(self, sizes: Float[np.ndarray, " N"]) -> float:
        """g; below 0 where no pair is hard."""
        count = round(self.share * len(sizes))
        return float(np.sort(sizes)[count - 1]) if count else -1.0


@dataclass(frozen=True)
class MarginSplit:
    """N pairs in sets. Pairs of one prompt may be in different ones."""

    threshold: float
    margins: Float[np.ndarray, "M N"]
    """The members' margins, NaN where a member did not score the pair."""
    sets: list[str]
    """By pair: easy, hard, contradicted or unscored."""
    swapped: Bool[np.ndarray, " N"]
    """Easy pairs whose answers are to be exchanged."""
    contradicted: Bool[np.ndarray, " N"]
    """Pairs with a margin below -g, whatever becomes of them."""

    @property
    def columns(self) -> dict[str, Float[np.ndarray, " N"]]:
        """The mean margin of each pair."""
        return {"split_margin": mean_margins(self.margins)}

    @property
    def reasons(self) -> list[str]:
        """The set of each pair."""
        return [f"{one}, swapped" if swapped else one for one, swapped in zip(self.sets, self.swapped, strict=True)]

    def summary(self) -> Json:
        """The threshold, the size of every set, and deciles of the margins' sizes."""
        sizes = np.abs(mean_margins(self.margins))
        known = sizes[np.isfinite(sizes)]
        counts = {name: self.sets.count(name) for name in (EASY, HARD, DROPPED, UNSCORED)}
        deciles = [round(float(value), 6) for value in np.quantile(known, np.linspace(0.1, 0.9, 9))] if len(known) else []
        against = {"against_the_label": int(self.contradicted.sum()), "swapped": int(self.swapped.sum())}
        return {"threshold": self.threshold, "sets": counts, **against, "margin_deciles": deciles}


@dataclass(frozen=True, kw_only=True)
@checked
class MPO:
    """Easy and hard pairs."""

    train_on: ClassVar[str] = "halves"

    split: Threshold | Quantile = field(default_factory=Quantile)
    """quantile, or threshold."""
    contradicted: Literal["drop", "keep", "swap"] = "drop"
    """What becomes of pairs whose margin is below -g: drop leaves them out of both sets, keep trains them as labelled, swap exchanges the answers."""
    reward: str = ""
    """A reward that did not train on these pairs, as `finegrain score` takes it; by default each half of the prompts trains a model for the other."""
    votes: Votes = field(default_factory=Whole)
    """Those models: whole reward models, or linear in the start model's features. Not read with a reward."""

    def trained(self, prompts: np.ndarray, seed: int) -> Bool[np.ndarray, "M N"]:
        """Which pairs each of two members trains on."""
        return split_in_halves(prompts, 1, seed)

    def voted(self, trained: Bool[np.ndarray, "M N"]) -> Bool[np.ndarray, "M N"]:
        """Which pairs each member scores: those it did not train on."""
        return ~trained

    def __call__(self, margins: Float[np.ndarray, "M N"]) -> MarginSplit:
        """The sets of the pairs, from the members' margins."""
        mean = mean_margins(margins)
        known = np.isfinite(mean)
        size = np.where(known, np.abs(mean), 0.0)
        threshold = self.split(size[known])
        easy = known & (size > threshold)
        against = easy & (mean < 0)
        dropped = against if self.contradicted == "drop" else np.zeros_like(against)
        names = np.select([~known, dropped, easy], [UNSCORED, DROPPED, EASY], HARD)
        return MarginSplit(threshold, margins, names.tolist(), against & (self.contradicted == "swap"), against)


def mean_margins(margins: Float[np.ndarray, "M N"]) -> Float[np.ndarray, " N"]:
    """The mean over the members that scored a pair; NaN where none did."""
    counts = np.isfinite(margins).sum(0)
    return np.where(counts > 0, np.nansum(np.where(np.isfinite(margins), margins, 0.0), 0) / np.maximum(counts, 1), np.nan)
