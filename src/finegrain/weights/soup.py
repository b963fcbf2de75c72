"""Weight average of checkpoints that were fine-tuned from the same pretrained weights.

Source: Wortsman et al. 2022 (model soups), https://arxiv.org/abs/2203.05482, uniform soup; as the reference of PPO: Chegini et al. 2024
(SALSA), https://arxiv.org/abs/2411.01798 (abstract; no official code).
Deviations: weights are divided by their sum, as mergekit's `linear` does by default.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, checked
from finegrain.errors import UsageError
from finegrain.weights.blocks import map_blocks, refuse_base


def interpolate(tensors: Sequence[Float[Tensor, "*shape"]], weights: Sequence[float]) -> Float[Tensor, "*shape"]:
    """sum_i a_i theta_i for weights that sum to 1; where all tensors with a weight are equal, exactly their number, with its sign."""
    first, *others = [one for one, weight in zip(tensors, weights, strict=True) if weight]
    equal = torch.ones_like(first, dtype=torch.bool)
    for one in others:
        equal &= (one == first) & (one.signbit() == first.signbit())
    return torch.where(equal, first, weighted_sum(tensors, weights))


def weighted_sum(tensors: Sequence[Float[Tensor, "*shape"]], weights: Sequence[float]) -> Float[Tensor, "*shape"]:
    """sum_i a_i theta_i; a tensor with the weight 0 leaves no trace, not even in the sign of a zero."""
    first, *rest = [weight * one for weight, one in zip(weights, tensors, strict=True) if weight]
    for one in rest:
        first = first + one
    return first


@dataclass(frozen=True, kw_only=True)
@checked
class Soup:
    """Settings of a soup."""

    strength: ClassVar[str] = "weight of the first model"
    grid: ClassVar[tuple[float, ...]] = (0.0, 0.25, 0.5, 0.75, 1.0)
    start: ClassVar[float] = 1.0

    weights: tuple[NonNegativeFloat, ...] = ()
    """A weight per model, in their order, divided by their sum; by default equal ones."""

    def __post_init__(self) -> None:
        if not math.isfinite(sum(self.weights)):
            raise UsageError("the sum of the weights of a soup is not finite; only their ratios count, so give smaller ones")
        if self.weights and sum(self.weights) <= 0:
            raise UsageError("the weights of a soup are all 0; give at least one model a positive weight")

    def at(self, value: float) -> "Soup":
        """Of two models, the first with the weight `value`."""
        if not 0 <= value <= 1:
            raise UsageError(f"the weight of the first model must be in [0, 1], got {value:g}; beyond an end lies method:expo")
        return Soup(weights=(value, 1 - value))

    def check(self, models: int, *, base: bool) -> None:
        """At least two models, and as many weights."""
        refuse_base("soup", base=base)
        if models < 2:
            raise UsageError("method:soup averages at least two models; give --model A B")
        if self.weights and len(self.weights) != models:
            raise UsageError(f"{len(self.weights)} weights for {models} models; give one per model, in the order of --model")

    def coefficients(self, models: int) -> tuple[float, ...]:
        """Weights that sum to 1."""
        weights = self.weights or (1.0,) * models
        return tuple(weight / sum(weights) for weight in weights)

    def __call__(self, models: Sequence[Tensor], base: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The weighted mean."""
        weights = self.coefficients(len(models))
        return map_blocks(lambda blocks: interpolate(blocks, weights), models, dtype)
