"""DPO-Positive (DPOP): DPO with a penalty wherever the chosen answer is less probable than under the reference.

Source: Pal et al. 2024 (Smaug), https://arxiv.org/abs/2402.13228, eq. 3 (number: memory).
Deviations: none. The default rate is ours [choice].
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.margins import log_ratio_margin
from finegrain.ops.sequence import log_ratio
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class DPOP:
    """Hyper-parameters of DPO-Positive."""

    learning_rate: ClassVar[float] = 1e-6
    """That of DPO, which it is while the chosen answers do not fall."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""
    penalty: NonNegativeFloat = 50.0
    """The paper's lambda: nats of margin that a nat of fall of the chosen answer costs; 0 is DPO."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,): -log sigma(beta * (margin - penalty * max(0, -log-ratio of the chosen answer)))."""
        return dpo_loss(log_ratio_margin(pair) - self.penalty * relu(-log_ratio(pair.chosen)), beta=self.beta)
