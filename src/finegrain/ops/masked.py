"""Masked reductions over the token axis: masks select and never multiply, so invalid values under a mask have no effect."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_sum(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Sum over the tokens where mask is True; NaN under the mask reaches neither value nor gradient."""
    return torch.where(mask, values, 0.0).sum(-1)


def masked_mean(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Mean over the tokens where mask is True; 0 for a row without any."""
    return masked_sum(values, mask) / mask.sum(-1).clamp(min=1)
