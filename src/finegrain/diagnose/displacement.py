"""Likelihood displacement: whether training made the chosen answers less probable, and in which pairs and tokens.

Source: Razin et al. 2024, https://arxiv.org/abs/2410.08847 (the phenomenon: the margin grows while both answers fall).
Deviations: the verdicts and their use of 95 % intervals are ours [OURS].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from finegrain.diagnose.groups import group_means
from finegrain.ops.stats import Interval, mean_interval

DISPLACED = "displaced"
WORSE = "worse"
RAISED = "raised"
BOTH_ROSE = "both rose"
SEPARATED = "separated"
UNDECIDED = "undecided"

WORDS = {
    DISPLACED: "Likelihood displacement: the chosen answers became less probable, and the margin grew because the rejected ones fell more.",
    WORSE: "Both answers became less probable and the margin did not grow, so neither is preferred more.",
    RAISED: "No displacement: the chosen answers became more probable and the rejected ones did not.",
    BOTH_ROSE: "No displacement: both answers became more probable.",
    SEPARATED: "The chosen answers did not change within the interval, and the rejected ones became less probable.",
    UNDECIDED: "The change of the chosen answers is not distinguishable from zero at this number of pairs.",
}


@dataclass(frozen=True)
class Displacement:
    """Changes of log-probability by training, nats per answer."""

    chosen: Interval
    rejected: Interval
    margin: Interval
    """Chosen minus rejected change."""
    verdict: str

    @property
    def words(self) -> str:
        """The verdict as a sentence."""
        return WORDS[self.verdict]


def assess_displacement(chosen: Float[np.ndarray, " N"], rejected: Float[np.ndarray, " N"], groups: Int[np.ndarray, " N"]) -> Displacement:
    """The verdict on per-pair changes (after minus before, nats); intervals are Student-t over groups of pairs of one row."""
    up, down, margin = (mean_interval(group_means(values, groups)) for values in (chosen, rejected, chosen - rejected))
    return Displacement(up, down, margin, _verdict(sign(up), sign(down), sign(margin)))


def sign(interval: Interval) -> int:
    """+1 or -1 where the whole interval lies on one side of zero, else 0."""
    if interval.low is None or interval.high is None:
        return 0
    return 1 if interval.low > 0 else -1 if interval.high < 0 else 0


def _verdict(chosen: int, rejected: int, margin: int) -> str:
    if chosen < 0:
        return DISPLACED if margin > 0 else WORSE
    if chosen > 0:
        return BOTH_ROSE if rejected > 0 else RAISED
    return SEPARATED if rejected < 0 else UNDECIDED


class Share(NamedTuple):
    """The share of the fall that some of the pairs account for."""

    pairs: int
    """The pairs that fell most."""
    of_pairs: int
    share: float
    """Share of the summed fall of all pairs that fell."""


def concentration(chosen: Float[np.ndarray, " N"]) -> Share | None:
    """The share of the fall in the tenth of the pairs that fell most; None where nothing fell."""
    falls = np.sort(-np.minimum(np.asarray(chosen, dtype=float), 0))[::-1]
    if falls.sum() <= 0:
        return None
    count = max(1, round(len(falls) / 10))
    return Share(count, len(falls), float(falls[:count].sum() / falls.sum()))


class TokenChange(NamedTuple):
    """The change of one piece of text over all answers that contain it."""

    text: str
    total: float
    """Summed change, nats."""
    mean: Interval
    """Mean per answer that contains it, nats."""


def token_changes(texts: Sequence[Sequence[str]], changes: Sequence[np.ndarray], most: int = 10) -> list[TokenChange]:
    """The pieces whose log-probability fell most in sum, with the interval of their mean over answers (answers are independent, tokens are not)."""
    found: dict[str, dict[int, float]] = {}
    for answer, (pieces, values) in enumerate(zip(texts, changes, strict=True)):
        for piece, value in zip(pieces, values, strict=True):
            own = found.setdefault(piece, {})
            own[answer] = own.get(answer, 0.0) + float(value)
    ranked = sorted(found.items(), key=lambda item: sum(item[1].values()))[:most]
    return [TokenChange(piece, sum(own.values()), mean_interval(list(own.values()))) for piece, own in ranked if sum(own.values()) < 0]
