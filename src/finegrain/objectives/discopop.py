"""DiscoPOP (log-ratio modulated loss): logistic and exponential loss mixed by a sigmoid of the margin.

Source: Lu et al. 2024, https://arxiv.org/abs/2406.08414, eq. 8 (number: memory).
Deviations: none in value; e^-z sigma(z/tau) is one exponential, so that a very negative margin cannot give inf * 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.margins import log_ratio_margin
from finegrain.types import Pair


def discopop_loss(margin: Float[Tensor, " B"], *, beta: float, tau: float) -> Float[Tensor, " B"]:
    """-(1 - g) log sigma(z) + g e^-z with z = beta * margin and g = sigma(z / tau); margin in nats."""
    scaled = beta * margin
    logistic = -logsigmoid(scaled) * torch.sigmoid(-scaled / tau)
    return logistic + torch.exp(logsigmoid(scaled / tau) - scaled)


@dataclass(frozen=True, kw_only=True)
@checked
class DiscoPOP:
    """Hyper-parameters of DiscoPOP."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""
    tau: PositiveFloat = 0.05
    """Temperature of the mixture, the paper's value."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        return discopop_loss(log_ratio_margin(pair), beta=self.beta, tau=self.tau)
