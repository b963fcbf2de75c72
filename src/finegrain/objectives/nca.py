"""Noise contrastive alignment (NCA) on pairs: raises the chosen answer's likelihood rather than the margin.

Source: Chen et al. 2024, https://arxiv.org/abs/2402.05369, eq. 12 (number: memory) on pairs; as `nca_pair` in TRL 1.16.
Deviations: none.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import PositiveFloat, checked
from finegrain.ops.sequence import log_ratio
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class NCA:
    """Hyper-parameters of NCA on pairs."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,): -ls(beta c) - ls(-beta c) / 2 - ls(-beta r) / 2 of the log-ratios c and r in nats; ls is log sigma."""
        chosen, rejected = log_ratio(pair.chosen), log_ratio(pair.rejected)
        return -logsigmoid(self.beta * chosen) - 0.5 * logsigmoid(-self.beta * chosen) - 0.5 * logsigmoid(-self.beta * rejected)
