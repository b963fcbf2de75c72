"""DPO on log-ratios averaged over the tokens of each answer (length-normalised DPO).

Source: Lambert et al. 2024 (Tulu 3), https://arxiv.org/abs/2411.15124, eq. 6 (number: memory); as `sigmoid_norm` in TRL 1.16.
Deviations: none; under token credit the average divides by the kept weight.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.margins import average_log_ratio_margin
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class SigmoidNorm:
    """Hyper-parameters of length-normalised DPO."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 5.0
    """KL-regularisation strength per token; Tulu 3's value (memory). TRL's 0.1 is that of summed losses."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        return dpo_loss(average_log_ratio_margin(pair), beta=self.beta)
