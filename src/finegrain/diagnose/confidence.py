"""Whether a reward model orders pairs as labelled, is calibrated, and is uncertain about the pairs that it gets wrong.

Source: confidence against accuracy: Guo et al. 2017, https://arxiv.org/abs/1706.04599 [memory].
Deviations: the verdicts, from 95 % intervals of the mean gap, ten points of tolerance, and the fewest rows for a verdict are
ours [choice]; the expected calibration error is shown but not used for a verdict: it is biased upwards with few rows.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from finegrain.diagnose.displacement import sign
from finegrain.diagnose.groups import FEWEST_ROWS, group_means
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import Interval

RANKS = "ranks as labelled"
REVERSED = "ranks the wrong way"
GUESSES = "at chance"
OVER = "over-confident"
UNDER = "under-confident"
HONEST = "honest"
UNDECIDED = "undecided"
KNOWS = "doubts its mistakes"
BLIND = "doubts the wrong pairs"
NEAR = 0.1
FEWEST_OF_A_KIND = 5
"""Minimum number of right and of wrong pairs for a verdict on the standard deviation."""

WORDS = {
    RANKS: "The reward model gives the chosen answer the higher score more often than chance.",
    REVERSED: "The reward model gives the rejected answer the higher score more often than chance; check whether labels or signs are swapped.",
    GUESSES: "How often the chosen answer gets the higher score is not distinguishable from chance at this number of rows.",
    OVER: "Over-confident: it is right less often than its score differences imply; do not read them as probabilities.",
    UNDER: "Under-confident: it is right more often than its score differences imply.",
    HONEST: "Honest: on average its confidence matches its accuracy to within ten points.",
    KNOWS: "Its standard deviation is larger on the pairs that it gets wrong, so it can be used to detect mistakes.",
    BLIND: "Its standard deviation is larger on the pairs that it gets right, so it does not indicate mistakes.",
}
HONESTY_UNKNOWN = "Whether confidence and accuracy agree to within ten points cannot be decided at this number of rows."
DOUBT_UNKNOWN = "Whether the standard deviation indicates wrong pairs cannot be decided at this number of pairs."


@dataclass(frozen=True)
class Order:
    """How often the chosen answer scores higher."""

    accuracy: Interval
    """Share of the pairs, per row of the data; Wilson over rows. A tie of scores counts half."""
    verdict: str

    @property
    def words(self) -> str:
        """The verdict as a sentence."""
        return WORDS[self.verdict]


@dataclass(frozen=True)
class Honesty:
    """Confidence against accuracy."""

    gap: Interval
    """Mean confidence minus share right, with the Wilson interval of that share. Positive: over-confident."""
    verdict: str

    @property
    def words(self) -> str:
        """The verdict as a sentence."""
        return HONESTY_UNKNOWN if self.verdict == UNDECIDED else WORDS[self.verdict]


def compute_correctness(margins: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """1 where the chosen answer scores higher, 0 where the rejected one does, 1/2 for a tie of scores."""
    shares: Float[np.ndarray, " N"] = 0.5 + 0.5 * np.sign(margins)
    return shares


def confidence(margins: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """sigma(|score difference|): the probability a Bradley-Terry model gives to the answer that it prefers."""
    sure: Float[np.ndarray, " N"] = np.exp(-np.logaddexp(0.0, -np.abs(margins)))
    return sure


def assess_order(margins: Float[np.ndarray, " N"], groups: Int[np.ndarray, " N"]) -> Order:
    """The verdict on score differences, chosen minus rejected; the pairs of one group count as one."""
    accuracy = wilson(group_means(compute_correctness(margins), groups))
    if accuracy.low is None or accuracy.high is None or accuracy.rows < FEWEST_ROWS:
        return Order(accuracy, GUESSES)
    return Order(accuracy, RANKS if accuracy.low > 0.5 else REVERSED if accuracy.high < 0.5 else GUESSES)


def assess_honesty(margins: Float[np.ndarray, " N"], groups: Int[np.ndarray, " N"]) -> Honesty:
    """The verdict on confidence: honest where the whole interval of the gap is within ten points, else by the side of the interval."""
    accuracy = wilson(group_means(compute_correctness(margins), groups))
    if accuracy.low is None or accuracy.high is None:
        return Honesty(Interval(float("nan"), None, None, 0), UNDECIDED)
    sure = float(group_means(confidence(margins), groups).mean())
    low, high = sure - accuracy.high, sure - accuracy.low
    gap = Interval(sure - accuracy.mean, low, high, accuracy.rows)
    if gap.rows < FEWEST_ROWS:
        return Honesty(gap, UNDECIDED)
    if -NEAR <= low and high <= NEAR:
        return Honesty(gap, HONEST)
    return Honesty(gap, {1: OVER, -1: UNDER, 0: UNDECIDED}[sign(gap)])


def assess_doubt(mistakes_found: Interval, fewest: int) -> tuple[str, str]:
    """The verdict and its sentence on the area under the ROC curve of the standard deviation as a detector of mistakes; 1/2 is chance.

    `fewest`: the smaller number of right and of wrong pairs.
    """
    if fewest < FEWEST_OF_A_KIND:
        return UNDECIDED, DOUBT_UNKNOWN
    if mistakes_found.low is not None and mistakes_found.low > 0.5:
        return KNOWS, WORDS[KNOWS]
    if mistakes_found.high is not None and mistakes_found.high < 0.5:
        return BLIND, WORDS[BLIND]
    return UNDECIDED, DOUBT_UNKNOWN
