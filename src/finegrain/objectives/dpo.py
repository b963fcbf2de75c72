"""Direct preference optimisation: logistic loss on the difference of sequence log-ratios.

Source: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, eq. 7.
Deviations: none.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.margins import log_ratio_margin
from finegrain.types import Pair


def dpo_loss(margin: Float[Tensor, " B"], *, beta: float) -> Float[Tensor, " B"]:
    """-log sigma(beta * margin); margin is the difference of log-ratios in nats."""
    return -logsigmoid(beta * margin)


@dataclass(frozen=True, kw_only=True)
@checked
class DPO:
    """Hyper-parameters of DPO."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    learning_rate: ClassVar[float] = 1e-6
    """The field's default for full fine-tuning with DPO (TRL 1.16; the authors used 5e-7)."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength; larger values keep the policy closer to the reference."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss, nats-free; rows (B,)."""
        return dpo_loss(log_ratio_margin(pair), beta=self.beta)
