"""Coverage of the credit: how many of the answers' tokens train under it.

Source: ours [OURS], for the masks of https://arxiv.org/abs/2411.00809.
Deviations: the verdicts and their thresholds are ours [choice].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finegrain.ops.proportions import wilson
from finegrain.ops.stats import Interval, mean_interval

DROPS_ALL = "drops everything"
DROPS_MOST = "drops most"
KEEPS_ALL = "keeps everything"
PARTIAL = "selects"

ALMOST_NOTHING = 0.01
LITTLE = 0.1

WORDS = {
    DROPS_ALL: "The credit drops everything: almost no token trains, so this run learned almost nothing from its answers.",
    DROPS_MOST: "The credit drops more than nine tokens in ten; check whether the kept ones are those that should train.",
    PARTIAL: "The credit lets part of the tokens train.",
    KEEPS_ALL: "The credit keeps every token at full weight, so it has no effect.",
}
"""The worst first."""


@dataclass(frozen=True)
class Coverage:
    """Weights of one side's answers."""

    kept: Interval
    """Mean token weight per answer; Student-t over answers."""
    dropped: Interval
    """Share of the answers that keep no token at all; Wilson."""
    verdict: str

    @property
    def words(self) -> str:
        """The verdict as a sentence."""
        return WORDS[self.verdict]


def assess_coverage(weights: Sequence[np.ndarray]) -> Coverage:
    """The verdict on the weights (T,) of the trainable tokens, one array per answer with a credit."""
    used = [weight for weight in weights if len(weight)]
    kept = mean_interval([float(np.abs(weight).mean()) for weight in used])
    dropped = wilson([float(not weight.any()) for weight in used])
    return Coverage(kept, dropped, share_verdict(kept.mean, all(bool((weight == 1).all()) for weight in used)))


def share_verdict(kept: float, keeps_all: bool) -> str:
    """The verdict on a mean weight alone."""
    if kept < ALMOST_NOTHING:
        return DROPS_ALL
    return DROPS_MOST if kept < LITTLE else KEEPS_ALL if keeps_all else PARTIAL
