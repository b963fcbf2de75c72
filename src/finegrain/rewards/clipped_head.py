"""A trained linear head with bounds on its input, and the search for those bounds on cached features.

Source: https://arxiv.org/abs/2309.16827 (Adam, lr 0.1, price every 10 epochs after epoch 30); applying clean agreement to pairs is [choice].
Deviations: full-batch steps on cached features; start at quantiles, not at 1; see `finegrain.rewards.mm_calibration`.
"""

from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from finegrain.checked import NonNegativeInt, PositiveFloat, PositiveInt, Range, checked
from finegrain.errors import DataError
from finegrain.rewards.mm_calibration import AdaptivePrice, Bounds, clip_features, keep_labels, keep_scores, largest_score, quantile_bounds

Features = Float[Tensor, "N D"]
Scores = Float[Tensor, " N"]


class ClippedHead(nn.Module):
    """A scalar head on clipped features: `score`, `raw_score`, and the largest possible score. Saved with the model, not trained."""

    low: Tensor
    high: Tensor

    def __init__(self, head: nn.Linear, bounds: Bounds) -> None:
        super().__init__()
        if head.out_features != 1 or bounds.low.shape != (head.in_features,):
            raise DataError(f"bounds of {bounds.low.numel()} units do not fit a head {head.in_features} -> {head.out_features}; expected one score")
        self.head = head
        self.register_buffer("low", bounds.low.detach().clone())
        self.register_buffer("high", bounds.high.detach().clone())

    def forward(self, features: Features) -> Float[Tensor, " N"]:
        """Scores of clipped features."""
        scores: Tensor = self.head(clip_features(features, Bounds(self.low, self.high)))
        return scores.squeeze(-1)

    def gap(self, features: Features) -> Float[Tensor, " N"]:
        """Score without minus score with bounds: the contribution of unusual features."""
        raw: Tensor = self.head(features)
        clipped: Tensor = self(features)
        return raw.squeeze(-1) - clipped

    def ceiling(self) -> float:
        """The largest possible score of any text."""
        bias = 0.0 if self.head.bias is None else self.head.bias.item()
        return largest_score(self.head.weight[0], Bounds(self.low, self.high)).item() + bias


class FittedBounds(NamedTuple):
    """Bounds and their effect on clean pairs."""

    bounds: Bounds
    ceiling_before: float
    """Largest w . h over the initial box."""
    ceiling: float
    """The same at the end."""
    agreement: float
    """Share of the clean pairs whose order is unchanged; a pair that becomes tied counts as changed."""
    shift: float
    """Mean squared change of the clean scores."""


@dataclass(frozen=True, kw_only=True)
class SameScores:
    """MMAC: clean answers keep their scores. Labels are not read."""

    def __call__(self, chosen: Scores, rejected: Scores, was_chosen: Scores, was_rejected: Scores) -> Float[Tensor, ""]:
        """Mean squared change of the scores."""
        return keep_scores(torch.cat([chosen, rejected])[:, None], torch.cat([was_chosen, was_rejected])[:, None]).mean()


@dataclass(frozen=True, kw_only=True)
class SameLabels:
    """MMOM, reconstructed: clean pairs keep their labels. On pairs the cross-entropy is Bradley-Terry's [choice]."""

    def __call__(self, chosen: Scores, rejected: Scores, was_chosen: Scores, was_rejected: Scores) -> Float[Tensor, ""]:
        """Mean of -log sigma of the difference."""
        return keep_labels(torch.stack([chosen, rejected], 1), torch.zeros(len(chosen), dtype=torch.long, device=chosen.device)).mean()


Keep = SameScores | SameLabels
SAME_SCORES = SameScores()


@dataclass(frozen=True, kw_only=True)
@checked
class FitBounds:
    """The lowest ceiling that preserves the order of clean pairs; `keep` selects what else it preserves."""

    start: Annotated[float, Range(0.5, 1.0, low_open=True)] = 0.999
    """Quantile of the clean features for the initial bounds [choice]."""
    epochs: PositiveInt = 300
    """Full-batch steps."""
    lr: PositiveFloat = 0.1
    """Learning rate of Adam, in standard deviations of a unit."""
    warmup: NonNegativeInt = 30
    """Steps before the price first changes."""
    every: PositiveInt = 10
    """Steps between changes of the price."""
    price: AdaptivePrice = field(default_factory=AdaptivePrice)
    """Coefficient of the ceiling."""

    def __call__(self, weight: Float[Tensor, " D"], chosen: Features, rejected: Features, keep: Keep = SAME_SCORES) -> FittedBounds:
        """Bounds for the head `weight` from the features of clean pairs: the last bounds that met the agreement, or else the initial ones."""
        features = torch.cat([chosen, rejected])
        begin = quantile_bounds(features, self.start)
        unit = features.std(0, correction=0).clamp(min=torch.finfo(features.dtype).tiny)
        steps = [torch.zeros_like(part, requires_grad=True) for part in begin]
        optimiser, price = torch.optim.Adam(steps, lr=self.lr), self.price.start
        was_chosen, was_rejected, best = chosen @ weight, rejected @ weight, begin
        for epoch in range(self.epochs):
            bounds = self._bounds(begin, steps, unit)
            now_chosen, now_rejected = (clip_features(part, bounds) @ weight for part in (chosen, rejected))
            kept = keep(now_chosen, now_rejected, was_chosen, was_rejected)
            optimiser.zero_grad()
            (kept + price * largest_score(weight, bounds)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            agreement = measure_agreement(weight, chosen, rejected, now := self._bounds(begin, [step.detach() for step in steps], unit))
            if agreement >= self.price.agreement and largest_score(weight, now) <= largest_score(weight, best):
                best = now
            if epoch >= self.warmup and (epoch - self.warmup) % self.every == 0:
                price = self.price(price, agreement)
        shift = (clip_features(features, best) @ weight - features @ weight).square().mean()
        before, after = (float(largest_score(weight, bounds)) for bounds in (begin, best))
        return FittedBounds(best, before, after, measure_agreement(weight, chosen, rejected, best), float(shift))

    def _bounds(self, begin: Bounds, steps: list[Tensor], unit: Tensor) -> Bounds:
        """The box after some steps; where the two bounds have crossed, both are their mean."""
        low, high = begin.low + unit * steps[0], begin.high + unit * steps[1]
        middle = (low + high) / 2
        return Bounds(torch.where(low > high, middle, low), torch.where(low > high, middle, high))


def measure_agreement(weight: Tensor, chosen: Features, rejected: Features, bounds: Bounds) -> float:
    """Share of pairs whose scores have the same order with and without the bounds."""
    return float(same_order(weight, chosen, rejected, bounds).double().mean())


def same_order(weight: Tensor, chosen: Features, rejected: Features, bounds: Bounds) -> Bool[Tensor, " N"]:
    """Whether the scores of a pair have the same order with and without the bounds."""
    before = ((chosen - rejected) @ weight).sign()
    after = ((clip_features(chosen, bounds) - clip_features(rejected, bounds)) @ weight).sign()
    return before == after
