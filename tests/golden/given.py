"""What every adapter starts from: names and nested lists of a reference file."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Values = dict[str, Any]
Adapters = dict[str, Callable[[Values, Values], Values]]


def real(values: Any) -> Tensor:
    """Nested lists in float64."""
    return torch.tensor(values, dtype=torch.float64)
