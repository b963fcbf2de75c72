"""The widest floating-point numbers of a device."""

import torch
from torch import Tensor

WITHOUT_FLOAT64 = {"mps"}
"""Devices that refuse float64."""


def placed(values: Tensor, device: torch.device | str) -> Tensor:
    """The values on a device, float64 ones in float32 where it has nothing wider."""
    narrow = values.dtype == torch.float64 and torch.device(device).type in WITHOUT_FLOAT64
    return values.to(device, torch.float32) if narrow else values.to(device)


def widest(values: Tensor) -> Tensor:
    """The values in float64, or in float32 where their device has nothing wider."""
    return values.float() if values.device.type in WITHOUT_FLOAT64 else values.double()
