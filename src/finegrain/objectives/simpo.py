"""Simple preference optimisation (SimPO): logistic loss on the margin of average log-probabilities minus a target.

Source: Meng et al. 2024, https://arxiv.org/abs/2405.14734, eq. 6 (number: memory).
Deviations: none; under token credit the average divides by the kept weight.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.objectives.margins import average_logp_margin
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class SimPO:
    """Hyper-parameters of SimPO."""

    needs: ClassVar[frozenset[str]] = frozenset()
    learning_rate: ClassVar[float] = 1e-6
    """Upper end of the authors' 3e-7 to 1e-6 (memory); they warn that larger rates lead to incoherent text."""

    beta: PositiveFloat = 2.0
    """Scale of the margin per token; the paper uses 2 to 10 (TRL's default 0.1 is that of other losses)."""
    gamma: NonNegativeFloat = 1.0
    """Target margin in units of the scaled margin; the paper uses 0.3 to 1.6."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,): -log sigma(beta * margin - gamma); margin in nats per token."""
        margin = average_logp_margin(pair)
        return -logsigmoid(self.beta * margin - self.gamma)
