"""Self-play preference optimisation (SPPO), hard labels: squared distance of the log-ratios from +1/(2 beta) and -1/(2 beta).

Source: Wu et al. 2024, https://arxiv.org/abs/2405.00675, eq. 4.7 (number: memory) with win rates 1 and 0; as `sppo_hard` in TRL 1.16.
Deviations: one round on given pairs; the paper's sampling and re-labelling between rounds is outside the loss.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.ops.sequence import log_ratio
from finegrain.types import Pair


def target_distances(pair: Pair, *, beta: float) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """(c - 1/(2 beta))^2 and (r + 1/(2 beta))^2 of the log-ratios c and r of the chosen and the rejected answer, nats squared."""
    return (log_ratio(pair.chosen) - 0.5 / beta).square(), (log_ratio(pair.rejected) + 0.5 / beta).square()


@dataclass(frozen=True, kw_only=True)
@checked
class SPPO:
    """Hyper-parameters of SPPO with hard labels."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 0.1
    """Inverse of the paper's eta: targets are +-1 / (2 beta) nats."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,), nats squared: the sum of both answers' squared distances from their targets."""
        chosen, rejected = target_distances(pair, beta=self.beta)
        return chosen + rejected
