"""Weights that hold NaN or infinity, refused where they are loaded."""

import math
from collections.abc import Iterable

import torch

from finegrain.errors import ModelError
from finegrain.models.load_errors import some


def refuse_not_finite(source: str, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raises ModelError for weights that hold NaN or infinity: nothing can be scored with them or trained from them."""
    bad = [name for name, weight in weights if weight.is_floating_point() and weight.numel() and not _is_finite(weight)]
    if bad:
        raise ModelError(f"{source}: {len(bad)} weights hold NaN or infinity: {some(bad)}; the checkpoint is damaged, or its training diverged")


def _is_finite(weight: torch.Tensor) -> bool:
    return all(map(math.isfinite, map(float, torch.aminmax(weight.detach()))))
