"""TDPO1: DPO that also compares how far each position's next-token distribution has moved from the reference, by forward KL.

Source: Zeng et al. 2024, https://arxiv.org/abs/2404.11999; the authors' `tdpo_loss` with `if_tdpo2` false.
Deviations: none. Token credit weights a position's KL as its log-ratio [choice].
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.token_kl import margin_measures, regret_score, side_measures
from finegrain.types import Pair, Terms


def regret_margin(pair: Pair) -> Float[Tensor, " B"]:
    """h + (KL of the chosen - KL of the rejected answer), nats."""
    return regret_score(pair.chosen) - regret_score(pair.rejected)


@dataclass(frozen=True, kw_only=True)
@checked
class TDPO1:
    """Hyper-parameters of TDPO1."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference", "reference_kl"})
    learning_rate: ClassVar[float] = 1e-6
    """That of DPO [choice]: the same gradient at the reference. The authors used 5e-6 with RMSprop, and advise TDPO1 for low rates."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength; it multiplies log-ratios and KL alike."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        return dpo_loss(regret_margin(pair), beta=self.beta)

    def measures(self, pair: Pair) -> Terms:
        """Margin and accuracy of the loss, and each side's reward and KL."""
        return {**margin_measures(regret_margin(pair), beta=self.beta), **side_measures(pair, beta=self.beta)}
