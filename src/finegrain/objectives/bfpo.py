"""Bi-factorial preference optimisation (BFPO): IPO whose target says how helpful and how safe both answers are.

    loss = (h - (g - alpha) / tau)^2,   g = (B1 s_w - s_l) / (B1 - 1)

h is the margin of summed log-ratios, chosen the more helpful answer, s_w and s_l 1 where the chosen and the rejected answer are safe.

Source: Zhang et al. 2024, https://arxiv.org/abs/2408.15313, and the authors' code.
Deviations: none in the loss; the paper's further constant B2 is 0, as in the code (memory).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, Range, Share, checked
from finegrain.objectives.margins import log_ratio_margin
from finegrain.types import Pair

Rows = Float[Tensor, " B"]
AboveOne = Annotated[float, Range(1.0, low_open=True)]


def bfpo_target(chosen_safe: Rows, rejected_safe: Rows, *, beta: float, b1: float, alpha: float) -> Rows:
    """(g - alpha) / tau: the margin, nats, that a pair with these flags is drawn to."""
    return ((b1 * chosen_safe - rejected_safe) / (b1 - 1) - alpha) / beta


def bfpo_loss(margin: Rows, target: Rows) -> Rows:
    """(margin - target)^2, both in nats; with the target 1 / (2 beta) everywhere it is summed IPO."""
    return (margin - target).square()


@dataclass(frozen=True, kw_only=True)
@checked
class BFPO:
    """Hyper-parameters of BFPO."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    columns: ClassVar[tuple[str, ...]] = ("is_chosen_safe", "is_rejected_safe")
    learning_rate: ClassVar[float] = 5e-7
    """The authors'."""

    beta: PositiveFloat = 0.01
    """The paper's tau: targets are at most 1 / tau nats away from 0 at the default alpha and b1."""
    b1: AboveOne = 3.0
    """How much more the chosen answer's safety counts than the rejected one's."""
    alpha: Share = 0.5
    """Shift of all targets: at 0 a pair of two unsafe answers has the target 0, at 1 a pair of two safe ones."""

    def __call__(self, pair: Pair) -> Rows:
        """Per-row loss (B,), nats squared."""
        margin = log_ratio_margin(pair)
        flags = (pair.columns[name].to(margin.dtype) for name in self.columns)
        return bfpo_loss(margin, bfpo_target(*flags, beta=self.beta, b1=self.b1, alpha=self.alpha))
