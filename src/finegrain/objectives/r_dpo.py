"""R-DPO: DPO whose link carries the difference of the answers' lengths, so that length is not learned as quality.

Source: Park et al. 2024, https://arxiv.org/abs/2403.19159, eq. 9 (number: memory); default alpha as in HumainLab/Understand_MarginPO.
Deviations: under token credit a length is the kept weight. The default rate is ours [choice].
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.objectives.margins import log_ratio_margin
from finegrain.ops.sequence import kept_weight
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class RDPO:
    """Hyper-parameters of R-DPO."""

    learning_rate: ClassVar[float] = 1e-6
    """That of DPO, whose slope it has where both answers are of one length."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""
    alpha: NonNegativeFloat = 0.2
    """Reward of a token that only length explains, in units of the scaled margin; 0 is DPO."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,): -log sigma(beta * margin + alpha * (tokens of the chosen - tokens of the rejected answer))."""
        longer = kept_weight(pair.chosen) - kept_weight(pair.rejected)
        return -logsigmoid(self.beta * log_ratio_margin(pair) + self.alpha * longer)
