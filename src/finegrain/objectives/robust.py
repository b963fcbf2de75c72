"""Robust DPO (rDPO): the loss whose expectation under randomly flipped labels is DPO's loss on clean labels.

Source: Ray Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409, eq. 12 (number: memory).
Deviations: none. The default rate is ours [choice].
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.conservative import WrongLabels
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.margins import log_ratio_margin
from finegrain.types import Pair


def robust_loss(margin: Float[Tensor, " B"], *, beta: float, label_smoothing: float) -> Float[Tensor, " B"]:
    """((1 - e) dpo_loss(margin) - e dpo_loss(-margin)) / (1 - 2 e); margin in nats."""
    right = (1 - label_smoothing) * dpo_loss(margin, beta=beta)
    wrong = label_smoothing * dpo_loss(-margin, beta=beta)
    return (right - wrong) / (1 - 2 * label_smoothing)


@dataclass(frozen=True, kw_only=True)
@checked
class Robust:
    """Hyper-parameters of robust DPO."""

    learning_rate: ClassVar[float] = 1e-6
    """That of DPO, whose gradient it has in expectation."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""
    label_smoothing: WrongLabels = 0.1
    """Probability that a label is flipped, in [0, 0.5); 0 is DPO."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,); may be negative."""
        return robust_loss(log_ratio_margin(pair), beta=self.beta, label_smoothing=self.label_smoothing)
