"""IPO with log-ratios averaged over the tokens of each answer.

Source: Azar et al. 2023, https://arxiv.org/abs/2310.12036, eq. 17 (number: memory); averaged as in TRL 1.16, which states that it
matches the IPO authors.
Deviations: none from TRL; under token credit the average divides by the kept weight.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.ipo import ipo_loss
from finegrain.objectives.margins import average_log_ratio_margin
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class IPOAveraged:
    """Hyper-parameters of IPO, averaged form."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 0.1
    """The paper's tau: the margin converges to 1 / (2 beta) nats per token."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,), nats per token squared."""
        return ipo_loss(average_log_ratio_margin(pair), beta=self.beta)
