"""Kahneman-Tversky optimisation (KTO): each answer separately against a shared reference point z0.

Source: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306, eq. 7 and 8 (number: memory).
Deviations: z0 is the mean over the whole optimiser step (paper and TRL: over a micro-batch, averaged over devices);
rows whose mismatched answer has no token are not counted in it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.ops.sequence import log_ratio
from finegrain.types import Pair, Side, Summed


def mismatch_statistics(side: Side) -> dict[str, Summed]:
    """Sum of the log-ratios of mismatched answers (nats) and how many there are."""
    present = side.mask.any(-1)
    ratios = log_ratio(side)
    return {"mismatched_log_ratio": Summed(ratios.sum()), "mismatched_rows": Summed(present.to(ratios.dtype).sum())}


def reference_point(total: Float[Tensor, ""], rows: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """z0 = max(0, mean log-ratio of mismatched answers), nats: the estimate of KL(policy || reference)."""
    return (total / rows.clamp(min=1)).clamp(min=0)


def kto_loss(
    ratio: Float[Tensor, " B"], desirable: Bool[Tensor, " B"], z0: Float[Tensor, ""], *, beta: float, weight: tuple[float, float] = (1.0, 1.0)
) -> Float[Tensor, " B"]:
    """D (1 - sigma(beta (r - z0))) for desirable answers, U (1 - sigma(beta (z0 - r))) for others; weight is (D, U)."""
    gain = beta * (ratio - z0)
    return torch.where(desirable, weight[0] * torch.sigmoid(-gain), weight[1] * torch.sigmoid(gain))


@dataclass(frozen=True, kw_only=True)
@checked
class KTO:
    """Hyper-parameters of KTO."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    statistic_roles: ClassVar[tuple[str, ...]] = ("mismatched",)
    needs: ClassVar[frozenset[str]] = frozenset({"reference", "label"})
    learning_rate: ClassVar[float] = 1e-6
    """TRL's default for its KTO trainer; the authors used 5e-7 to 5e-6 (memory)."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""
    desirable_weight: NonNegativeFloat = 1.0
    """D: weight of desirable answers."""
    undesirable_weight: NonNegativeFloat = 1.0
    """U: weight of undesirable answers; the authors keep D n_D / (U n_U) between 1 and 4/3."""

    def statistics(self, pair: Pair) -> dict[str, Summed]:
        """The statistics for z0, from the side `mismatched`."""
        return mismatch_statistics(pair.sides["mismatched"])

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,); column `label` is 1 for desirable answers and 0 for others."""
        z0 = reference_point(pair.statistics["mismatched_log_ratio"], pair.statistics["mismatched_rows"])
        weight = (self.desirable_weight, self.undesirable_weight)
        return kto_loss(log_ratio(pair.answer), pair.columns["label"] > 0.5, z0, beta=self.beta, weight=weight)
