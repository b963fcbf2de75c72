"""IRFT: one round of inverse RL from demonstrations, with the policy's own log-ratio as reward.

    m = log-ratio(demonstration) - log-ratio(sample of the round's opponent);   logistic -log sigma(beta m), linear -beta m, hinge max(0, 1 - beta m)

Source: Li et al. 2024, https://arxiv.org/abs/2405.17888, and the authors' code. Chosen is the demonstration, rejected the sample, and the
reference the opponent that generated it.
Deviations: one round; `finegrain iterate` samples again and updates the reference between rounds.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.hinge import hinge_loss
from finegrain.objectives.margins import log_ratio_margin
from finegrain.types import Pair

Rows = Float[Tensor, " B"]


@dataclass(frozen=True, kw_only=True)
class LogisticLink:
    """-log sigma: the loss is then DPO, and SPIN where a round is an epoch."""

    def __call__(self, margin: Rows, *, beta: float) -> Rows:
        """Per pair."""
        return dpo_loss(margin, beta=beta)


@dataclass(frozen=True, kw_only=True)
class LinearLink:
    """The gradient of inverse RL itself, unbounded below: for few steps between two rounds of sampling."""

    def __call__(self, margin: Rows, *, beta: float) -> Rows:
        """Per pair."""
        return -beta * margin


@dataclass(frozen=True, kw_only=True)
class HingeLink:
    """Pairs with a margin above 1 / beta have no gradient."""

    def __call__(self, margin: Rows, *, beta: float) -> Rows:
        """Per pair."""
        return hinge_loss(margin, beta=beta)


@dataclass(frozen=True, kw_only=True)
@checked
class IRLSFT:
    """Hyper-parameters of one round of IRFT."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    learning_rate: ClassVar[float] = 5e-7
    """The authors'."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""
    link: LogisticLink | LinearLink | HingeLink = field(default_factory=LogisticLink)
    """logistic-link, linear-link or hinge-link."""

    @property
    def unbounded(self) -> str:
        """The linear link's loss is."""
        return "link:linear-link is the margin itself, which has no largest value" if isinstance(self.link, LinearLink) else ""

    def __call__(self, pair: Pair) -> Rows:
        """Per-row loss (B,)."""
        return self.link(log_ratio_margin(pair), beta=self.beta)
