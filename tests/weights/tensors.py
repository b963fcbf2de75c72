"""Ragged tensors of a planted base and its fine-tunes."""

from collections.abc import Sequence

import torch
from torch import Tensor

SHAPES = ((), (1,), (7,), (5, 3), (2, 3, 5))


def related(count: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[list[Tensor]]:
    """By shape, a base and its fine-tunes; some numbers are zeros of either sign, some did not move."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for shape in SHAPES:
        base = torch.randn(shape, generator=generator)
        base = torch.where(torch.rand(shape, generator=generator) < 0.2, torch.tensor(-0.0), base)
        tuned = [base + 0.1 * torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.7) for _ in range(count - 1)]
        found.append([one.to(dtype) for one in (base, *tuned)])
    return found


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equality of every bit, the signs of zeros included."""
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return one.dtype == other.dtype and bool(torch.equal(one.reshape(-1).view(kind), other.reshape(-1).view(kind)))


def numbers(*values: float) -> Tensor:
    """A vector in float64."""
    return torch.tensor(values, dtype=torch.float64)


def close(found: Tensor, wanted: Tensor | Sequence[float], tolerance: float = 1e-12) -> None:
    """Equal up to round-off of float64."""
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), rtol=0, atol=tolerance)
