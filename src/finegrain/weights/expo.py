"""ExPO: the weights of an aligned checkpoint, moved further along what alignment changed; no training.

Source: Zheng et al. 2024, https://arxiv.org/abs/2404.16792; chujiezheng/LLM-Extrapolation @04e04f59, extrapolate.py.
Deviations: float32 arithmetic, where the original adds in bfloat16, in which alpha * change is lost where the change is near the
spacing of bfloat16 numbers.
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


def extrapolate(aligned: Float[Tensor, "*shape"], start: Float[Tensor, "*shape"], alpha: float) -> Float[Tensor, "*shape"]:
    """theta_1 + alpha (theta_1 - theta_0); theta_1 itself for alpha 0, or where both are equal."""
    moved = alpha * (aligned - start)
    return torch.where(moved == 0, aligned, aligned + moved)  # -0.0 + 0.0 would be another number, bit by bit


@dataclass(frozen=True, kw_only=True)
@checked
class Expo:
    """Settings of ExPO."""

    strength: ClassVar[str] = "alpha"
    grid: ClassVar[tuple[float, ...]] = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
    start: ClassVar[float] = 0.0

    alpha: float = 0.5
    """How far beyond the aligned model, in units of its distance from the start; 0 leaves it, -1 goes back to the start.

    The authors advise 0.3 to 0.5 for fully trained models, and more for those stopped early (2.5 at a fifth of the steps).
    """

    def at(self, value: float) -> "Expo":
        """With another alpha."""
        return replace(self, alpha=value)

    def check(self, models: int, *, base: bool) -> None:
        """One model and its start."""
        require_base("expo", base=base, what="the checkpoint that the aligned model was trained from")
        if models != 1:
            raise UsageError(f"method:expo extrapolates one model from its --base, got {models}; for several take method:task-arithmetic")

    def coefficients(self, models: int) -> tuple[float, ...]:
        """Of the aligned model and of its start."""
        return (1 + self.alpha, -self.alpha)

    def __call__(self, models: Sequence[Tensor], base: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The extrapolated tensor."""
        assert base is not None
        return map_blocks(lambda blocks: extrapolate(blocks[0], blocks[1], self.alpha), [models[0], base], dtype)
