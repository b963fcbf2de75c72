"""Hinge loss on the difference of sequence log-ratios (SLiC's link with a reference).

Source: Zhao et al. 2023 (SLiC-HF), https://arxiv.org/abs/2305.10425, eq. 1 (number: memory); Liu et al. 2023 (RSO),
https://arxiv.org/abs/2309.06657, eq. 9 (number: memory) ("hinge-norm").
Deviations: none.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.margins import log_ratio_margin
from finegrain.types import Pair


def hinge_loss(margin: Float[Tensor, " B"], *, beta: float) -> Float[Tensor, " B"]:
    """max(0, 1 - beta * margin); margin in nats."""
    return relu(1 - beta * margin)


@dataclass(frozen=True, kw_only=True)
@checked
class Hinge:
    """Hyper-parameters of the hinge loss."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 0.1
    """Inverse of the margin, in nats, above which a pair has no gradient."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        return hinge_loss(log_ratio_margin(pair), beta=self.beta)
