"""Alignment via optimal transport (AOT), unpaired: sorted chosen log-ratios against sorted rejected log-ratios.

Source: Melnyk et al. 2024, https://arxiv.org/abs/2406.05882, eq. 9 (number: memory); as `aot_unpaired` in TRL 1.16.
Deviations: sorted over the whole optimiser step and all ranks (TRL: over a micro-batch).
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.conservative import WrongLabels, conservative_loss
from finegrain.objectives.ranks import ascending_ranks, find_own_rows
from finegrain.ops.sequence import log_ratio
from finegrain.types import Gathered, Pair


@dataclass(frozen=True, kw_only=True)
@checked
class AOTUnpaired:
    """Hyper-parameters of unpaired AOT."""

    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for every loss of its DPO trainer, this one included."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""
    label_smoothing: WrongLabels = 0.0
    """Probability that a label is wrong, in [0, 0.5)."""

    def statistics(self, pair: Pair) -> dict[str, Gathered]:
        """Log-ratios of all rows of the step, and the positions of their rows."""
        return {
            "chosen": Gathered(log_ratio(pair.chosen)),
            "rejected": Gathered(log_ratio(pair.rejected)),
            "position": Gathered(pair.columns["position"]),
        }

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,): the chosen answer of rank k against the k-th smallest rejected log-ratio.

        The row's rejected answer is matched with another row's chosen one; its part is added as a difference with
        value 0, so that the sum over the step has both the value and the gradient of the sorted loss.
        """
        chosen, rejected, position = (pair.statistics[name] for name in ("chosen", "rejected", "position"))
        rows = find_own_rows(pair)
        lower = rejected.sort().values[ascending_ranks(chosen, position)[rows]]
        upper = chosen.sort().values[ascending_ranks(rejected, position)[rows]]
        return self._loss(log_ratio(pair.chosen) - lower) + self._loss(upper - log_ratio(pair.rejected)) - self._loss(upper - rejected[rows])

    def _loss(self, margin: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        return conservative_loss(margin, beta=self.beta, label_smoothing=self.label_smoothing)
