"""Efficient exact optimisation (EXO) on pairs: reverse KL from the policy's preference to a nearly hard label.

Source: Ji et al. 2024, https://arxiv.org/abs/2402.00856, eq. 16 (K = 2) (number: memory); as `exo_pair` in TRL 1.16.
Deviations: none.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import PositiveFloat, Range, checked
from finegrain.objectives.margins import log_ratio_margin
from finegrain.types import Pair


def exo_loss(margin: Float[Tensor, " B"], *, beta: float, epsilon: float) -> Float[Tensor, " B"]:
    """KL(Bernoulli(sigma(beta * margin)) || Bernoulli(1 - epsilon)); margin in nats."""
    log_win, log_lose = logsigmoid(beta * margin), logsigmoid(-beta * margin)
    return log_win.exp() * (log_win - math.log1p(-epsilon)) + log_lose.exp() * (log_lose - math.log(epsilon))


@dataclass(frozen=True, kw_only=True)
@checked
class EXO:
    """Hyper-parameters of EXO on pairs."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""
    epsilon: Annotated[float, Range(0.0, 0.5, low_open=True, high_open=True)] = 1e-3
    """Probability of the rejected answer in the target; the paper's value, in (0, 0.5)."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,), nats."""
        return exo_loss(log_ratio_margin(pair), beta=self.beta, epsilon=self.epsilon)
