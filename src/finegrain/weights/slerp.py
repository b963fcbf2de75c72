"""Spherical interpolation of two checkpoints: each tensor, taken as one vector, turns from the first model's direction to the second's.

Source: Shoemake 1985, https://doi.org/10.1145/325165.325242; per tensor as mergekit's `slerp` does (arcee-ai/mergekit @0925e523,
merge_methods/slerp.py), https://arxiv.org/abs/2403.13257.
Deviations: a tensor that is zero in one model, which has no direction, is interpolated linearly [choice]; mergekit takes the angle as 90 degrees.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from finegrain.checked import Share, checked
from finegrain.errors import UsageError
from finegrain.weights.blocks import inner_products, map_blocks, refuse_base
from finegrain.weights.soup import interpolate, weighted_sum

NEARLY_PARALLEL = 0.9995
"""Cosine beyond which the arc is taken as straight; mergekit's threshold."""


def arc_weights(cosine: float, t: float) -> tuple[float, float]:
    """What two vectors, whose angle has this cosine, are multiplied by at the share t of the arc between them."""
    angle = math.acos(cosine)
    return math.sin(angle * (1 - t)) / math.sin(angle), math.sin(angle * t) / math.sin(angle)


@dataclass(frozen=True, kw_only=True)
@checked
class Slerp:
    """Settings of spherical interpolation."""

    strength: ClassVar[str] = "t"
    grid: ClassVar[tuple[float, ...]] = (0.0, 0.25, 0.5, 0.75, 1.0)
    start: ClassVar[float] = 0.0

    t: Share = 0.5
    """Share of the arc: 0 is the first model, 1 the second."""

    def at(self, value: float) -> "Slerp":
        """With another t."""
        return replace(self, t=value)

    def check(self, models: int, *, base: bool) -> None:
        """Two models."""
        refuse_base("slerp", base=base)
        if models != 2:
            raise UsageError(f"method:slerp goes from one model to another, got {models}; for more take method:soup")

    def coefficients(self, models: int) -> tuple[float, ...] | None:
        """They depend on the angle of each tensor, but at the ends."""
        return (1 - self.t, self.t) if self.t in (0, 1) else None

    def __call__(self, models: Sequence[Tensor], base: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The tensor on the arc."""
        cosine = inner_products(models[0], models[1]).cosine
        if cosine is None or abs(cosine) > NEARLY_PARALLEL:
            return map_blocks(lambda blocks: interpolate(blocks, (1 - self.t, self.t)), models, dtype)
        weights = arc_weights(cosine, self.t)
        return map_blocks(lambda blocks: weighted_sum(blocks, weights), models, dtype)
