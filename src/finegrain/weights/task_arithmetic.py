"""Task arithmetic: what fine-tuning changed in several models, added to their common base.

Source: Ilharco et al. 2023, https://arxiv.org/abs/2212.04089; parameters as mergekit's `task_arithmetic` has them (weight, lambda).
Deviations: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.errors import UsageError
from finegrain.weights.blocks import map_blocks, require_base


def add_deltas(base: Float[Tensor, "*shape"], models: Sequence[Float[Tensor, "*shape"]], weights: Sequence[float]) -> Float[Tensor, "*shape"]:
    """theta_0 + sum_i w_i (theta_i - theta_0)."""
    found = base
    for model, weight in zip(models, weights, strict=True):
        moved = weight * (model - base)
        found = torch.where(moved == 0, found, found + moved)  # -0.0 + 0.0 would be another number, bit by bit
    return found


@dataclass(frozen=True, kw_only=True)
@checked
class TaskArithmetic:
    """Settings of task arithmetic."""

    strength: ClassVar[str] = "scale"
    grid: ClassVar[tuple[float, ...]] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
    start: ClassVar[float] = 0.0

    weights: tuple[float, ...] = ()
    """A weight per model's delta, in their order, used as given; by default 1 each. A negative one takes away what a model learnt."""
    scale: float = 1.0
    """Multiplies the sum of the deltas: mergekit's lambda."""

    def at(self, value: float) -> "TaskArithmetic":
        """With another scale."""
        return replace(self, scale=value)

    def check(self, models: int, *, base: bool) -> None:
        """Models and their base, and as many weights."""
        require_base("task-arithmetic", base=base, what="the checkpoint that all models were trained from")
        if self.weights and len(self.weights) != models:
            raise UsageError(f"{len(self.weights)} weights for {models} models; give one per model, in the order of --model")

    def coefficients(self, models: int) -> tuple[float, ...]:
        """Of the models, and of the base."""
        weights = [self.scale * weight for weight in self.weights or (1.0,) * models]
        return (*weights, 1 - sum(weights))

    def __call__(self, models: Sequence[Tensor], base: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The base with all deltas."""
        assert base is not None
        weights = self.coefficients(len(models))[:-1]
        return map_blocks(lambda blocks: add_deltas(blocks[0], blocks[1:], weights), [base, *models], dtype)
