"""Settings of a LoRA adapter; separate from `adapters` so that the command line can show them before any model library loads."""

from dataclasses import dataclass
from typing import Literal

from finegrain.checked import NonNegativeInt, PositiveFloat, checked


@dataclass(frozen=True, kw_only=True)
@checked
class Lora:
    """Low-rank adapter; rank 0 trains all weights."""

    rank: NonNegativeInt = 0
    """Rank of the update; 0 means full fine-tuning."""
    alpha: PositiveFloat = 16.0
    """The update is scaled by alpha / rank."""
    targets: str = "all-linear"
    """`all-linear` (every linear layer but the head), or names separated by commas."""
    base: Literal["checkpoint", "nf4"] = "checkpoint"
    """How the frozen weights are stored: in their checkpoint's dtype, or linear layers in 4 bits by bitsandbytes (the extra `nf4`)."""
