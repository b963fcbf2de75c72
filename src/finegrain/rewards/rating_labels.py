"""Cross-entropy between annotators' ratings and a rating head's distribution, with a choice of target and of class weights.

    L = - sum_k t_k log softmax(z)_k,  t the target of the rating; a rating between two classes mixes their targets

Source: targets and balanced sampling as in https://arxiv.org/abs/2403.00250, see `finegrain.rewards.targets`.
Deviations: balanced weights replace balanced sampling, with the same expected gradient [choice]; fractional ratings are ours [choice].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from finegrain.checked import checked
from finegrain.errors import DataError, UsageError
from finegrain.ops.precision import to_widest
from finegrain.ops.readout import last_place
from finegrain.ops.sequence import to_wide
from finegrain.rewards.heads import sequence_score
from finegrain.rewards.lort import fit_temperature, target_loss
from finegrain.rewards.rating import Rating
from finegrain.rewards.targets import OneHot, Target
from finegrain.types import Pair, Side, Term, Terms

PREFIX = "rating/"
Rows = Float[Tensor, " B"]


@dataclass(frozen=True, kw_only=True)
class Instance:
    """Every row has the same weight."""

    def __call__(self, classes: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Weights of the rows."""
        return np.ones(len(classes))


@dataclass(frozen=True, kw_only=True)
class Balanced:
    """Every present class has the same total weight; the mean weight is 1. For long-tailed ratings."""

    def __call__(self, classes: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Weights of the rows."""
        _, place, counts = np.unique(classes, return_inverse=True, return_counts=True)
        return np.asarray(len(classes) / (len(counts) * counts[place]), dtype=float)


Weighting = Instance | Balanced


@dataclass(frozen=True, kw_only=True)
@checked
class RatingLabels:
    """Hyper-parameters of learning from ratings."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    shape: ClassVar[str] = "rated"
    proportion_metrics: ClassVar[frozenset[str]] = frozenset({"rating_exact"})
    """Measures in [0, 1]."""
    results: ClassVar[Mapping[str, bool]] = {
        "eval_rating_error": False,
        "eval_rating_error_of_median": False,
        "eval_rating_exact": True,
        "eval_rating_balanced_accuracy": True,
        "eval_rating_balanced_error": False,
    }
    """Held-out results that show which of two models is better; True: higher is better."""
    head_kind: ClassVar[type] = Rating

    attribute: str | None = None
    """The rated attribute: helpfulness, honesty ...; None where the data have only one."""
    target: Target = field(default_factory=OneHot)
    """one-hot (cross-entropy), smoothed-target, odds-target (label over-smoothing), ordinal-target, gaussian-target."""
    weighting: Weighting = field(default_factory=Instance)
    """instance, or balanced over the classes of the training rows."""
    calibrate: bool = False
    """Fit the temperature of the scores on the held-out rows after training: flat targets move expected ratings towards the middle."""

    def row_columns(self, head: Rating, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Position of every rating on the scale (0: lowest), weight of its class, and the median rating; a rating outside the scale is an error."""
        name = self._column(columns)
        ratings = columns[name].astype(float)
        places = ratings - head.lowest
        wrong = np.flatnonzero(~((places >= 0) & (places <= head.classes - 1)))
        if len(wrong):
            scale = f"{head.lowest:g} .. {head.lowest + head.classes - 1:g}"
            found = ", ".join(f"{rating:g}" for rating in np.unique(ratings[wrong])[:5])
            raise DataError(
                f"{len(wrong)} of {len(ratings)} ratings of {name.removeprefix(PREFIX)!r} are outside the scale {scale}: {found}; "
                "set --head.lowest and --head.classes, and drop unrated rows (nan)"
            )
        return {"rating_place": places, "class_weight": self.weighting(np.round(places)), "median_place": np.full(len(places), np.median(places))}

    def _column(self, columns: Mapping[str, np.ndarray]) -> str:
        given = sorted(name for name in columns if name.startswith(PREFIX))
        if self.attribute is None and len(given) == 1:
            return given[0]
        if self.attribute is not None and PREFIX + self.attribute in given:
            return PREFIX + self.attribute
        there = ", ".join(name.removeprefix(PREFIX) for name in given) or "none"
        what = "name the rated attribute" if self.attribute is None else f"no attribute {self.attribute!r}"
        raise UsageError(f"{what}: set --loss.attribute to one that every row has; found: {there}")

    def __call__(self, head: Rating, pair: Pair) -> Terms:
        """One term, a mean weighted by class."""
        weight = pair.columns["class_weight"]
        losses = target_loss(rating_logits(pair.answer), self._targets(head, pair.columns["rating_place"]))
        weight = weight.to(losses.dtype)
        return {"ratings": Term(losses * weight, weight)}

    def _targets(self, head: Rating, places: Rows) -> Float[Tensor, "B K"]:
        """Distributions over the classes."""
        below = places.floor().clamp(max=head.classes - 2)
        share = to_widest(places - below)[:, None]
        mixed: Tensor = (1 - share) * self.target(below.long(), head.classes) + share * self.target(below.long() + 1, head.classes)
        return mixed

    def measures(self, head: Rating, pair: Pair) -> Mapping[str, Rows]:
        """Per answer, in steps of the scale: error of the expected and of the median rating; whether the most likely class is the rating's."""
        place = to_widest(pair.columns["rating_place"])
        expected = to_widest(sequence_score(head, pair.answer).mean) - head.lowest
        likeliest = rating_logits(pair.answer).argmax(1)
        return {
            "rating_error": (expected - place).abs(),
            "rating_error_of_median": (to_widest(pair.columns["median_place"]) - place).abs(),
            "rating_exact": to_widest(likeliest == place.round()),
        }


def rating_logits(side: Side) -> Float[Tensor, "B K"]:
    """Logits of the answer's last token; equal ones for an answer without a token."""
    assert side.outputs is not None
    return torch.where(last_place(side.mask)[..., None], to_wide(side.outputs), 0.0).sum(1)


def predict_ratings(pairs: Sequence[Pair]) -> tuple[Float[Tensor, "N K"], Int[Tensor, " N"]]:
    """Logits of all answers, and the class nearest to each rating."""
    logits = torch.cat([rating_logits(pair.answer).cpu().double() for pair in pairs])
    return logits, torch.cat([pair.columns["rating_place"].cpu() for pair in pairs]).round().long()


def calibrate_head(head: Rating, loss: RatingLabels, pairs: Sequence[Pair]) -> Rating:
    """With the loss's `calibrate`, the head with the temperature of lowest negative log-likelihood on held-out ratings, fractional ones rounded."""
    return replace(head, temperature=fit_temperature(*predict_ratings(pairs))) if loss.calibrate else head
