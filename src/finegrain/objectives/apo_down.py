"""Anchored preference optimisation, down: lowers both answers, the rejected one further; for a policy better than its data.

Source: D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266, eq. 5 (number: memory).
Deviations: none; plus 1, as in TRL 1.16, so that the loss is at least 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.ops.sequence import log_ratio
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class APODown:
    """Hyper-parameters of APO-down."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,), in (0, 2): sigma(beta c) + 1 - sigma(beta (c - r)) of the log-ratios c and r in nats."""
        chosen, rejected = log_ratio(pair.chosen), log_ratio(pair.rejected)
        return torch.sigmoid(self.beta * chosen) + 1 - torch.sigmoid(self.beta * (chosen - rejected))
