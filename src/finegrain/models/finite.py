"""Stops with an error when loaded weights contain NaN or infinity."""

import math
from collections.abc import Iterable

import torch

from finegrain.errors import ModelError
from finegrain.models.load_errors import list_some


def refuse_not_finite(source: str, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raises ModelError for weights that contain NaN or infinity, which can be neither scored with nor trained from."""
    bad = [name for name, weight in weights if weight.is_floating_point() and not is_finite(weight)]
    if bad:
        raise ModelError(
            f"{source}: {len(bad)} weights contain NaN or infinity: {list_some(bad)}; the checkpoint is damaged, or its training diverged"
        )


def is_finite(weight: torch.Tensor) -> bool:
    """Whether no number of a tensor is NaN or infinity."""
    return not weight.numel() or all(map(math.isfinite, map(float, torch.aminmax(weight.detach()))))
