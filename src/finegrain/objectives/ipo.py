"""Identity preference optimisation (IPO): squared distance of the summed log-ratio margin from 1 / (2 beta).

Source: Azar et al. 2023, https://arxiv.org/abs/2310.12036, eq. 17 (number: memory); summed over tokens as in the DPO authors' code.
Deviations: none. `ipo-averaged` is the per-token form; a beta tuned for one does not fit the other.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.margins import log_ratio_margin
from finegrain.types import Pair


def ipo_loss(margin: Float[Tensor, " B"], *, beta: float) -> Float[Tensor, " B"]:
    """(margin - 1 / (2 beta))^2; margin in nats, or nats per token for the averaged form."""
    return (margin - 1 / (2 * beta)).square()


@dataclass(frozen=True, kw_only=True)
@checked
class IPO:
    """Hyper-parameters of IPO, summed form."""

    learning_rate: ClassVar[float] = 1e-6
    """That of DPO [choice]; AdamW removes the larger scale of the squared loss."""

    beta: PositiveFloat = 0.1
    """The paper's tau: the margin converges to 1 / (2 beta) nats."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,), nats squared."""
        return ipo_loss(log_ratio_margin(pair), beta=self.beta)
