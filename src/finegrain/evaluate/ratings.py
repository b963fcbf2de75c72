"""How well a rating head predicts rare ratings: accuracy and error by class, and their plain means over classes.

Source: classes grouped by training rows (many > 100, medium 20 to 100, few < 20): authors' code of https://arxiv.org/abs/2403.00250.
Deviations: intervals and the balanced absolute error are ours [OURS].
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from finegrain.errors import DataError
from finegrain.ops.proportions import WeightedShare, combine_shares, wilson
from finegrain.ops.stats import Interval, mean_interval

Classes = Int[np.ndarray, " N"]
MANY, FEW = 100, 20


class RatingReport(NamedTuple):
    """Results of a rating head by class."""

    accuracy: Mapping[int, Interval]
    """By class that occurs."""
    absolute_error: Mapping[int, Interval]
    """Mean distance between the class and the answer, by class, in steps of the scale."""
    balanced_accuracy: Interval
    """Mean of the classes' accuracies: a head that always predicts the most frequent class has 1/K."""
    balanced_error: float
    """Mean of the classes' absolute errors. No interval: rare classes have too few rows for a normal approximation."""
    groups: Mapping[str, Interval]
    """Accuracy averaged over classes with many, medium and few training rows; a group without classes is left out."""


def report_ratings(predicted: Classes, truth: Int[np.ndarray, " M"], training_rows: Mapping[int, int]) -> RatingReport:
    """Per-class numbers on held-out rows; `training_rows` gives the number of training rows of each class."""
    if len(predicted) != len(truth) or not len(truth):
        raise DataError(f"every held-out row needs a prediction and a rating, got {len(predicted)} and {len(truth)}")
    present = [int(rating) for rating in np.unique(truth)]
    accuracy = {rating: wilson((predicted[truth == rating] == rating).astype(float)) for rating in present}
    error = {rating: mean_interval(np.abs(predicted[truth == rating] - rating)) for rating in present}
    groups: dict[str, list[WeightedShare]] = {}
    for rating in present:
        groups.setdefault(_group(training_rows.get(rating, 0)), []).append(WeightedShare(1.0, accuracy[rating]))
    return RatingReport(
        accuracy,
        error,
        combine_shares([WeightedShare(1.0, share) for share in accuracy.values()]),
        float(np.mean([share.mean for share in error.values()])),
        {name: combine_shares(groups[name]) for name in ("many", "medium", "few") if name in groups},
    )


def _group(rows: int) -> str:
    return "many" if rows > MANY else "medium" if rows >= FEW else "few"
