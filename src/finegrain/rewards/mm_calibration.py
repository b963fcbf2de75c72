"""An upper bound on the score of any text: bounds on a trained head's features that preserve its scores of clean answers.

Source: MMAC and MMDF, https://arxiv.org/abs/2309.16827; loss, controller and detection rule from the authors' code.
Deviations: two-sided bounds on the head's input, and its largest score in closed form instead of a search, adapt the method to reward models
[choice]. The cross-entropy variant (MMOM) is reconstructed from reviews of the paper. Low never exceeds high; the authors leave bounds free.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from finegrain.checked import PositiveFloat, Range, Share, checked
from finegrain.errors import DataError, UsageError

Features = Float[Tensor, "B D"]
Logits = Float[Tensor, "B K"]
Rows = Float[Tensor, " B"]
Units = Float[Tensor, " D"]


class Bounds(NamedTuple):
    """Box around the features, unit by unit; infinite bounds clip nothing."""

    low: Units
    high: Units


def quantile_bounds(features: Features, share: float = 0.999) -> Bounds:
    """Initial bounds, each of which leaves `1 - share` of the clean features of a unit outside."""
    if not 0.5 < share <= 1:
        raise UsageError(f"share, the part of the features below the upper bound, must be in (0.5, 1], got {share}")
    if not len(features) or not bool(features.isfinite().all()):
        raise DataError("bounds need finite features of at least one clean answer")
    return Bounds(features.quantile(1 - share, dim=0), features.quantile(share, dim=0))


def clip_features(features: Features, bounds: Bounds) -> Features:
    """Features inside the box. A bound's gradient comes only from features strictly outside it; at a tie the feature keeps it."""
    below = torch.where(features > bounds.high, bounds.high, features)
    return torch.where(below < bounds.low, bounds.low, below)


def largest_score(weight: Float[Tensor, "*K D"], bounds: Bounds) -> Float[Tensor, "*K"]:
    """The largest w . h over the box, exact: each unit at the bound that its weight prefers. Add the head's bias for the score."""
    zero = torch.zeros_like(weight)  # a weight of 0 times an infinite bound would be NaN
    best = torch.maximum(torch.where(weight == 0, zero, weight * bounds.high), torch.where(weight == 0, zero, weight * bounds.low))
    return best.sum(-1)


def largest_margin(weight: Float[Tensor, "K D"], bias: Float[Tensor, " K"], bounds: Bounds) -> Float[Tensor, " K"]:
    """For each class an upper bound on its margin over the box: the minimum, over the other classes, of the largest difference of logits."""
    difference = largest_score(weight[:, None] - weight[None], bounds) + (bias[:, None] - bias[None])
    same = torch.eye(len(weight), dtype=torch.bool, device=weight.device)
    return torch.where(same, torch.inf, difference).min(1).values


def margin(logits: Logits, classes: Int[Tensor, " B"]) -> Rows:
    """Logit of a class minus the largest of the other logits."""
    own = logits.gather(1, classes[:, None]).squeeze(1)
    return own - logits.scatter(1, classes[:, None], -torch.inf).max(1).values


def keep_scores(clipped: Logits, original: Logits) -> Rows:
    """MMAC: mean over outputs of the squared distance from the original ones, which are detached."""
    return (clipped - original.detach()).square().mean(1)


def keep_labels(clipped: Logits, labels: Int[Tensor, " B"]) -> Rows:
    """MMOM, reconstructed: cross-entropy of the clipped logits on a small balanced labelled set."""
    return cross_entropy(clipped, labels, reduction="none")


@dataclass(frozen=True, kw_only=True)
@checked
class AdaptivePrice:
    """The coefficient of the largest score: raised while clean decisions stay the same, lowered when they change."""

    start: PositiveFloat = 0.002
    """First coefficient."""
    factor: Annotated[float, Range(1.0)] = 1.2
    """The factor by which it is multiplied or divided."""
    agreement: Share = 0.95
    """Share of clean decisions that must stay the same."""

    def __call__(self, price: float, agreement: float) -> float:
        """The next coefficient."""
        return price * self.factor if agreement >= self.agreement else price / self.factor


class Detection(NamedTuple):
    """The clipped head's decisions on answers compared with the original head's."""

    logits: Logits
    """The original class; for a flagged answer the clipped class with the original one excluded."""
    predicted: Int[Tensor, " B"]
    gap: Rows
    """The reduction of the margin through the bounds."""
    flagged: Bool[Tensor, " B"]


FORBIDDEN = 1000.0
"""Subtracted from the logit of an excluded class."""


def margin_gap(original: Logits, clipped: Logits) -> Rows:
    """Margin of the originally predicted class before minus after clipping: large where unusual features determine the decision."""
    first = original.argmax(1)
    return margin(original, first) - margin(clipped, first)


def detection_threshold(clean_gap: Rows, deviations: float = 2.576) -> float:
    """Mean plus `deviations` standard deviations (population) of the gap on clean answers: 2.576 flags 1 in 200 of a normal gap, one-sided."""
    if not len(clean_gap):
        raise DataError("a threshold needs the gap of at least one clean answer")
    return float(clean_gap.mean() + deviations * clean_gap.std(correction=0))


def detect(original: Logits, clipped: Logits, threshold: float) -> Detection:
    """MMDF: where the gap exceeds the threshold, the clipped logits without the original class; elsewhere the original ones."""
    gap = margin_gap(original, clipped)
    flagged = gap > threshold
    without = clipped.scatter_add(1, original.argmax(1, keepdim=True), torch.full_like(clipped[:, :1], -FORBIDDEN))
    logits = torch.where(flagged[:, None], without, original)
    return Detection(logits, logits.argmax(1), gap, flagged)
