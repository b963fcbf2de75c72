"""Pairwise normalised gradients (PNGD): each pair's step goes along g_w / |g_w| - g_l / |g_l|, so that the answers cannot move the same way.

Source: Yuan et al. 2024, https://arxiv.org/abs/2410.13828, the first of two proposed remedies (no code of theirs; formula reconstructed).
Deviations: a pair's weight is the mean of the loss's two slopes (beta * sigma(-beta h) for dpo) [choice]; keeping the step length of the loss
is an option; under token credit g is the gradient of the weighted score [OURS]. The promise holds for one pair, a small step and plain SGD.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finegrain.checked import checked
from finegrain.objectives.dpo import DPO
from finegrain.objectives.hinge import Hinge
from finegrain.objectives.ipo import IPO
from finegrain.objectives.r_dpo import RDPO
from finegrain.objectives.reference_free import ReferenceFree
from finegrain.objectives.simpo import SimPO
from finegrain.ops.gradients import TINY, GradientPair, compare_gradients, gradient_of, score_slope
from finegrain.ops.sequence import sequence_logp
from finegrain.types import Pair, RowLoss


@dataclass(frozen=True, kw_only=True)
class SlopeLength:
    """The loss's mean slope c: the step is c (g_w / |g_w| - g_l / |g_l|), the definition."""

    def __call__(self, gradients: GradientPair, chosen_slope: float, rejected_slope: float) -> float:
        """What multiplies the difference of the unit gradients."""
        return (chosen_slope + rejected_slope) / 2


@dataclass(frozen=True, kw_only=True)
class LossLength:
    """As long as the loss's own step d_w g_w - d_l g_l on the same pair, so that its learning rate with plain SGD can stay."""

    def __call__(self, gradients: GradientPair, chosen_slope: float, rejected_slope: float) -> float:
        """What multiplies the difference of the unit gradients; 0 where they are parallel."""
        up, down = chosen_slope * gradients.chosen_norm, rejected_slope * gradients.rejected_norm
        own = max(up * up + down * down - 2 * up * down * gradients.cosine, 0.0) ** 0.5
        unit = max(2 - 2 * gradients.cosine, 0.0) ** 0.5
        sign = 1.0 if chosen_slope + rejected_slope >= 0 else -1.0
        return sign * own / unit if unit > PARALLEL else 0.0


PARALLEL = 1e-6
"""Below this length the difference of two unit gradients is round-off."""


@dataclass(frozen=True, kw_only=True)
@checked
class PNGD:
    """Hyper-parameters of pairwise normalised gradients."""

    learning_rate: ClassVar[float] = 1e-6
    """That of dpo: AdamW's steps do not depend on the length of a gradient."""
    gradient_cost: ClassVar[str] = (
        "two backward passes per pair over its micro-batch, in place of one for all, and three gradients in memory; "
        "--micro-tokens 1 makes a micro-batch of every pair, which takes the least arithmetic"
    )

    base: DPO | RDPO | IPO | Hinge | ReferenceFree | SimPO = field(default_factory=DPO)
    """The loss whose slopes weight the pairs: dpo, rdpo, ipo, hinge, reference-free, sim-po."""
    length: SlopeLength | LossLength = field(default_factory=SlopeLength)
    """Length of a pair's step: slope-length (the definition), loss-length (that of the loss's own step)."""

    @property
    def wraps(self) -> DPO | RDPO | IPO | Hinge | ReferenceFree | SimPO:
        """The base loss."""
        return self.base

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """The base loss per row, as it is logged and evaluated."""
        return self.base(pair)

    def gradient(self, pair: Pair, losses: Mapping[str, RowLoss], parameters: list[nn.Parameter]) -> list[Tensor]:
        """Minus the sum over rows of c (g_w / |g_w| - g_l / |g_l|), each under the row's share of the step."""
        total = [torch.zeros_like(parameter) for parameter in parameters]
        loss = torch.stack([(part.share * part.value).sum() for part in losses.values()]).sum()
        slopes = torch.autograd.grad(loss, [pair.chosen.logp, pair.rejected.logp], retain_graph=True)
        up, down = -score_slope(slopes[0], pair.chosen), score_slope(slopes[1], pair.rejected)
        scores = sequence_logp(pair.chosen), sequence_logp(pair.rejected)
        for row, (chosen_slope, rejected_slope) in enumerate(zip(up.tolist(), down.tolist(), strict=True)):
            if chosen_slope == 0 and rejected_slope == 0:
                continue
            chosen, rejected = (gradient_of(score[row], parameters) for score in scores)
            gradients = compare_gradients(chosen, rejected)
            size = self.length(gradients, chosen_slope, rejected_slope)
            for sum_of, good, bad in zip(total, chosen, rejected, strict=True):
                sum_of -= size / max(gradients.chosen_norm, TINY) * good
                sum_of += size / max(gradients.rejected_norm, TINY) * bad
        return total
