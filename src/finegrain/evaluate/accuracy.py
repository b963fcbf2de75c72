"""Share of pairs that a scorer orders correctly, with Wilson's interval, and the baseline scores that any reward model must beat.

Source: strict comparison and half credit for judge models: RewardBench, https://arxiv.org/abs/2403.13787, authors' code.
Deviations: none; the interval is ours [OURS].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from finegrain.errors import DataError
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import Interval

Scores = Float[np.ndarray, " N"]


@dataclass(frozen=True, kw_only=True)
class TieLoses:
    """Correct only where the chosen answer scores strictly higher: the rule for classifiers and implicit rewards."""

    def __call__(self, chosen: Scores, rejected: Scores) -> Scores:
        """Credit 0 or 1 per pair."""
        wins: Scores = (require_finite(chosen) > require_finite(rejected)).astype(float)
        return wins


@dataclass(frozen=True, kw_only=True)
class TieShares:
    """Half a point for a tie: the rule for judge models that may rate two answers equal."""

    def __call__(self, chosen: Scores, rejected: Scores) -> Scores:
        """Credit 0, 1/2 or 1 per pair."""
        credit: Scores = 0.5 + 0.5 * np.sign(require_finite(chosen) - require_finite(rejected))
        return credit


TieRule = TieLoses | TieShares


class PairAccuracy(NamedTuple):
    """How often the chosen answer scores higher."""

    accuracy: Interval
    tied: int
    """Number of pairs of equal scores, caused by half precision, or by a policy that equals its reference: all tied, accuracy 0."""


def pair_accuracy(chosen: Scores, rejected: Scores, rule: TieRule | None = None) -> PairAccuracy:
    """Accuracy over pairs with Wilson's interval, and the number of ties."""
    return PairAccuracy(wilson((rule or TieLoses())(chosen, rejected)), int((chosen == rejected).sum()))


def length_scores(responses: Sequence[str]) -> Scores:
    """The number of characters of each answer: the scores of a reward model that only prefers long answers."""
    return np.array([len(response) for response in responses], dtype=float)


def accuracy_by_length(credit: Scores, chosen_length: Scores, rejected_length: Scores) -> dict[str, Interval]:
    """Accuracy where the chosen answer is longer, shorter and of equal length; a large gap means that the score mainly follows length."""
    parts = {
        "chosen longer": chosen_length > rejected_length,
        "chosen shorter": chosen_length < rejected_length,
        "equal length": chosen_length == rejected_length,
    }
    return {name: wilson(credit[rows]) for name, rows in parts.items()}


def require_finite(scores: Scores) -> Scores:
    """The scores; raises DataError where one is NaN or infinite."""
    if not np.isfinite(scores).all():
        raise DataError(f"scores must be finite, {int((~np.isfinite(scores)).sum())} of {len(scores)} are not; drop those rows or fix the scorer")
    return scores
