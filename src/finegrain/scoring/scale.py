"""Mean and standard deviation that a reward model's scores have on held-out answers, as its run found them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from finegrain.errors import ModelError, UsageError
from finegrain.models.reward_models import read_facts
from finegrain.types import Json

ENTRY = "scores"
"""Its name in `reward_head.json` and in config.json's `finegrain`."""


@dataclass(frozen=True)
class ScoreScale:
    """Of answers' scores, in the head's own units."""

    mean: float
    std: float
    """ddof 1."""
    answers: int

    def score(self, value: float) -> float:
        """0 for the mean of held-out answers, 1 for a standard deviation above it."""
        return (value - self.mean) / self.std

    def normalised(self, score: Json) -> Json:
        """Mean, standard deviation and reward of an answer in units of the scale, those that it has."""
        found: Json = {name: self.score(score[name]) for name in ("mean", "reward") if name in score}
        return found if score["std"] is None else {**found, "std": score["std"] / self.std}

    def as_json(self) -> Json:
        """For the checkpoint and for results."""
        return asdict(self)


def fit_scale(scores: Sequence[float] | np.ndarray) -> ScoreScale | None:
    """The scale of these answers; None for fewer than two, and where all are alike."""
    values = np.asarray(scores, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all() or not values.std() > 0:
        return None
    return ScoreScale(float(values.mean()), float(values.std(ddof=1)), len(values))


def stored_scale(source: str) -> ScoreScale:
    """The scale that a checkpoint says of itself; raises UsageError where it says none."""
    told = read_facts(source).get(ENTRY)
    if told is None:
        raise UsageError(f"{source} has no mean and std of its scores, which its run finds on held-out answers (--holdout, --eval); drop normalise")
    try:
        found = ScoreScale(float(told["mean"]), float(told["std"]), int(told["answers"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{source} says of its scores {told!r}, which cannot be read: {error!r}") from error
    if not (math.isfinite(found.mean) and 0 < found.std < math.inf):
        raise ModelError(f"{source} says of its scores {told!r}; a mean must be finite and a std positive")
    return found
