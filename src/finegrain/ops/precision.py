"""The widest floating-point dtype of a device."""

import torch
from torch import Tensor

WITHOUT_FLOAT64 = {"mps"}
"""Devices without float64."""


def place_on(values: Tensor, device: torch.device | str) -> Tensor:
    """The values on a device; float64 becomes float32 on a device without it."""
    narrow = values.dtype == torch.float64 and torch.device(device).type in WITHOUT_FLOAT64
    return values.to(device, torch.float32) if narrow else values.to(device)


def to_widest(values: Tensor) -> Tensor:
    """The values in float64, or in float32 on a device without it."""
    return values.float() if values.device.type in WITHOUT_FLOAT64 else values.double()
