"""Conservative DPO (cDPO): DPO's cross-entropy against labels that are correct with probability 1 - label_smoothing.

Source: Mitchell 2023, https://ericmitchell.ai/cdpo.pdf, eq. 3 (number: memory).
Deviations: none. The default rate is ours [choice]; the note gives none.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, Range, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.margins import log_ratio_margin
from finegrain.types import Pair


def conservative_loss(margin: Float[Tensor, " B"], *, beta: float, label_smoothing: float) -> Float[Tensor, " B"]:
    """(1 - e) dpo_loss(margin) + e dpo_loss(-margin); margin in nats."""
    return (1 - label_smoothing) * dpo_loss(margin, beta=beta) + label_smoothing * dpo_loss(-margin, beta=beta)


WrongLabels = Annotated[float, Range(0.0, 0.5, high_open=True)]
"""A rate of wrong labels: from 0.5 on labels carry no information, or the opposite."""


@dataclass(frozen=True, kw_only=True)
@checked
class Conservative:
    """Hyper-parameters of cDPO."""

    learning_rate: ClassVar[float] = 1e-6
    """That of DPO: the same loss up to a bounded linear term."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""
    label_smoothing: WrongLabels = 0.1
    """Probability that a label is wrong, in [0, 0.5); 0 is DPO."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        return conservative_loss(log_ratio_margin(pair), beta=self.beta, label_smoothing=self.label_smoothing)
