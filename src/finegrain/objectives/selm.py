"""SELM: DPO, plus a term that takes probability from an answer of the model that the round started from.

    loss = -log sigma(beta m) + alpha beta log-ratio(generated),   m = log-ratio(chosen) - log-ratio(rejected)

Source: Zhang et al. 2024, https://arxiv.org/abs/2405.19332, and the authors' code, which multiplies alpha by beta (the figure of the algorithm does
not). The reference is the model that wrote the generated answer.
Deviations: none known. The default rate is that of the authors' first round; `finegrain iterate --round-lr` has one for each.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.margins import log_ratio_margin
from finegrain.ops.sequence import log_ratio
from finegrain.types import Pair


@dataclass(frozen=True, kw_only=True)
@checked
class SELM:
    """Hyper-parameters of SELM."""

    roles: ClassVar[tuple[str, ...]] = ("chosen", "rejected", "generated")
    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    shape: ClassVar[str] = "explored"
    learning_rate: ClassVar[float] = 5e-7
    """The authors', in their first round."""

    beta: PositiveFloat = 0.01
    """KL-regularisation strength (the authors')."""
    alpha: NonNegativeFloat = 0.001
    """Weight of the push away from the generated answer, times beta; 0 is DPO (the authors': 0.001, for Phi-3 0.0001)."""

    @property
    def unbounded(self) -> str:
        """The term has no lower bound."""
        return "alpha times the log-ratio of the generated answer has no lowest value" if self.alpha else ""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        loss = dpo_loss(log_ratio_margin(pair), beta=self.beta)
        return loss + self.alpha * self.beta * log_ratio(pair.sides["generated"]) if self.alpha else loss
