"""Binary classifier optimisation (BCO) on pairs: two logistic losses, chosen against 1 and rejected against 0.

Source: Jung et al. 2024, https://arxiv.org/abs/2404.04656, eq. 9 (number: memory); as `bco_pair` in TRL 1.16.
Deviations: as in TRL's pair loss, without the paper's running reward shift and without density-ratio weights.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import PositiveFloat, checked
from finegrain.ops.sequence import log_ratio
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class BCO:
    """Hyper-parameters of BCO on pairs."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,): -log sigma(beta c) - log sigma(-beta r) of the log-ratios c and r in nats."""
        chosen, rejected = log_ratio(pair.chosen), log_ratio(pair.rejected)
        return -logsigmoid(self.beta * chosen) - logsigmoid(-self.beta * rejected)
