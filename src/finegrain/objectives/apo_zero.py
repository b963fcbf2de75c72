"""Anchored preference optimisation, zero: raises chosen answers and lowers rejected ones, each against the reference.

Source: D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266, eq. 4 (number: memory).
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
class APOZero:
    """Hyper-parameters of APO-zero."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,), in (0, 2): 1 - sigma(beta c) + sigma(beta r) of the log-ratios c and r in nats."""
        chosen, rejected = log_ratio(pair.chosen), log_ratio(pair.rejected)
        return 1 - torch.sigmoid(self.beta * chosen) + torch.sigmoid(self.beta * rejected)
