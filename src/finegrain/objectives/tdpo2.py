"""TDPO2: DPO that pays for the forward KL of the rejected answer beyond that of the chosen one, which gets no gradient.

Source: Zeng et al. 2024, https://arxiv.org/abs/2404.11999; the authors' `tdpo_loss` with `if_tdpo2` true.
Deviations: none. Token credit weights a position's KL as its log-ratio [choice].
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.margins import log_ratio_margin
from finegrain.objectives.token_kl import margin_measures, side_measures
from finegrain.ops.sequence import sequence_kl
from finegrain.types import Pair, Terms


def guarded_margin(pair: Pair, *, alpha: float) -> Float[Tensor, " B"]:
    """h - alpha (KL of the rejected answer - KL of the chosen one, detached), nats."""
    return log_ratio_margin(pair) - alpha * (sequence_kl(pair.rejected) - sequence_kl(pair.chosen).detach())


@dataclass(frozen=True, kw_only=True)
@checked
class TDPO2:
    """Hyper-parameters of TDPO2."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference", "reference_kl"})
    learning_rate: ClassVar[float] = 1e-6
    """That of DPO [choice]: the same gradient at the reference. The authors used 5e-6 with RMSprop."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength; it multiplies log-ratios and KL alike."""
    alpha: NonNegativeFloat = 0.5
    """Weight of the difference of KL; 0 is DPO."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        return dpo_loss(guarded_margin(pair, alpha=self.alpha), beta=self.beta)

    def measures(self, pair: Pair) -> Terms:
        """Margin and accuracy of the loss, and each side's reward, which ignores alpha, and KL."""
        return {**margin_measures(guarded_margin(pair, alpha=self.alpha), beta=self.beta), **side_measures(pair, beta=self.beta)}
