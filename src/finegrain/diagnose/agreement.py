"""Agreement of a token signal with marks (annotators' spans, or planted truth), as a rank probability per answer.

Source: ours [OURS]; the number is Mann-Whitney's U over its maximum (Mann and Whitney 1947), turned so that 0.5 is chance.
Deviations: not from a paper.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from finegrain.diagnose.displacement import sign
from finegrain.ops.stats import Interval, count_below, mean_interval

AGREES = "agrees"
CONTRADICTS = "contradicts"
CHANCE = "chance"

WORDS = {
    AGREES: "The signal agrees with the marks more often than chance.",
    CONTRADICTS: "The signal contradicts the marks more often than chance.",
    CHANCE: "Agreement of the signal with the marks is not distinguishable from chance at this number of answers.",
}


def disagreement(signal: Float[np.ndarray, " T"], marks: Float[np.ndarray, " T"], mask: Bool[np.ndarray, " T"]) -> float:
    """Probability that, of two differently marked tokens, the better marked one has the lower signal (ties count half); NaN without two marks.

    `marks` is the value of a token's span, 0 outside.
    """
    values, level = signal[mask], np.sign(marks[mask])
    wrong = total = 0.0
    for worse, better in ((-1, 0), (-1, 1), (0, 1)):
        low, high = values[level == worse], values[level == better]
        if len(low) and len(high):
            wrong += float(count_below(low, high).sum())
            total += len(low) * len(high)
    return wrong / total if total else float("nan")


def mean_disagreement(values: Sequence[float]) -> tuple[Interval, str]:
    """Mean over answers that have both marked and unmarked tokens, and the verdict of its interval."""
    known = [value for value in values if np.isfinite(value)]
    interval = mean_interval(known)
    away = sign(mean_interval([value - 0.5 for value in known]))
    return interval, CONTRADICTS if away > 0 else AGREES if away < 0 else CHANCE
