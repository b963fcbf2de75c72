"""How well a score separates two kinds of rows, with intervals: area under the ROC curve, average precision, detection of own mistakes.

Source: interval of the area: DeLong, DeLong & Clarke-Pearson 1988, in the rank form of Sun & Xu 2014 [memory].
Deviations: where all rows are ordered correctly DeLong's variance is 0 and the interval is an exact binomial bound [OURS].
"""

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from finegrain.evaluate.accuracy import require_finite
from finegrain.ops.bootstrap import Bootstrap
from finegrain.ops.stats import Interval, count_below

Scores = Float[np.ndarray, " N"]
Kind = Bool[np.ndarray, " N"]


def auroc(scores: Scores, positive: Kind, level: float = 0.95) -> Interval:
    """Probability that a positive scores above a negative, ties counted half, with DeLong's interval.

    Where all are ordered correctly (or all in reverse), min(P, N) disjoint pairs are independent trials of one outcome, which bounds the area.
    No bounds with fewer than two of a kind; NaN where a kind is missing.
    """
    good, bad = _kinds(scores, positive)
    if not len(good) or not len(bad):
        return Interval(math.nan, None, None, len(scores))
    above = count_below(good, bad) / len(bad)  # share of negatives below each positive
    below = count_below(bad, good) / len(good)  # share of positives below each negative
    area = float(above.mean())
    if min(len(good), len(bad)) < 2:
        return Interval(area, None, None, len(scores))
    if area in (0.0, 1.0):
        bound = (0.5 - level / 2) ** (1 / min(len(good), len(bad)))
        return Interval(area, bound, 1.0, len(scores)) if area else Interval(area, 0.0, 1 - bound, len(scores))
    half = float(ndtri(0.5 + level / 2)) * math.sqrt(above.var(ddof=1) / len(good) + below.var(ddof=1) / len(bad))
    return Interval(area, max(0.0, area - half), min(1.0, area + half), len(scores))


def average_precision(scores: Scores, positive: Kind, bootstrap: Bootstrap | None = None) -> Interval:
    """Mean over positives of the share of positives among the rows that score at least as high, with a bootstrap interval within the kinds.

    Rows of equal score enter together, so the order of the data has no effect. An uninformative score gives the share of positives.
    """
    _kinds(scores, positive)
    if not positive.any():
        return Interval(math.nan, None, None, len(scores))
    return (bootstrap or Bootstrap())(lambda rows: precision(scores[rows], positive[rows]), positive.astype(int))


def precision(scores: Scores, positive: Kind) -> float:
    """Average precision without an interval; at least one row is positive."""
    order = np.argsort(-scores)
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    found, taken = positive[order].cumsum()[last_of_tie], np.flatnonzero(last_of_tie) + 1
    return float((np.diff(found, prepend=0) * found / taken).sum() / found[-1])


def mistakes_found(correct: Kind, uncertainty: Scores, level: float = 0.95) -> Interval:
    """Area under the ROC curve of the uncertainty as a detector of the model's own mistakes: 1/2 is uninformative, 1 finds them all."""
    return auroc(uncertainty, ~correct, level)


def _kinds(scores: Scores, positive: Kind) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " Q"]]:
    """The scores of the positives and of the negatives."""
    require_finite(scores)
    return scores[positive], scores[~positive]
