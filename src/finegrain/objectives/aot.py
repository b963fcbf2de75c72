"""Alignment via optimal transport (AOT), paired: the sorted policy margins against the sorted reference margins.

Source: Melnyk et al. 2024, https://arxiv.org/abs/2406.05882, eq. 11 (number: memory); as `aot` in TRL 1.16.
Deviations: sorted over the whole optimiser step and all ranks (TRL: over a micro-batch).
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.conservative import WrongLabels, conservative_loss
from finegrain.objectives.margins import logp_margin
from finegrain.objectives.ranks import ascending_ranks, find_own_rows
from finegrain.ops.sequence import reference_logp
from finegrain.types import Gathered, Pair


def aot_loss(upper: Float[Tensor, " B"], lower: Float[Tensor, " B"], *, beta: float, label_smoothing: float = 0.0) -> Float[Tensor, " B"]:
    """Loss of sorted(upper) - sorted(lower) in ascending order, a whole batch at once; both in nats."""
    return conservative_loss(upper.sort().values - lower.sort().values, beta=beta, label_smoothing=label_smoothing)


def reference_margin(pair: Pair) -> Float[Tensor, " B"]:
    """log pi_ref of the chosen minus that of the rejected answer, nats."""
    return reference_logp(pair.chosen) - reference_logp(pair.rejected)


@dataclass(frozen=True, kw_only=True)
@checked
class AOT:
    """Hyper-parameters of paired AOT."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""
    label_smoothing: WrongLabels = 0.0
    """Probability that a label is wrong, in [0, 0.5)."""

    def statistics(self, pair: Pair) -> dict[str, Gathered]:
        """Margins of all rows of the step, and the positions of their rows."""
        return {
            "margin": Gathered(logp_margin(pair)),
            "reference_margin": Gathered(reference_margin(pair)),
            "position": Gathered(pair.columns["position"]),
        }

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,): a row of rank k is compared with the k-th smallest reference margin."""
        rank = ascending_ranks(pair.statistics["margin"], pair.statistics["position"])[find_own_rows(pair)]
        reference = pair.statistics["reference_margin"].sort().values[rank]
        return conservative_loss(logp_margin(pair) - reference, beta=self.beta, label_smoothing=self.label_smoothing)
