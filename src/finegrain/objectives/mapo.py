"""MaPO: token-level DPO under one fixed mask, of how strongly the reference's units respond where a token is predicted.

Source: Christopoulou et al. 2024 (SparsePO), https://arxiv.org/abs/2410.05102; the authors' `mapo_trainer.py`.
Deviations: those of `finegrain.models.activations`, which makes the mask once, before training; it is a token credit of the method's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.objectives.tdpo1 import regret_margin
from finegrain.objectives.token_kl import margin_measures, side_measures
from finegrain.types import Pair, Ragged, Terms, TokenColumns


@runtime_checkable
class ActivationContext(Protocol):
    """As much as MaPO reads of a run's answers: the run says it."""

    @property
    def roles(self) -> Sequence[str]:
        """The sides."""

    def activations(self, role: str) -> Ragged:
        """How strongly the start model's units respond where each token is predicted, in [0, 1]; 0 outside the mask."""


@dataclass(frozen=True, kw_only=True)
@checked
class MaPO:
    """Hyper-parameters of MaPO."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference", "reference_kl"})
    token_columns: ClassVar[tuple[str, ...]] = ("weight",)
    learning_rate: ClassVar[float] = 1e-6
    """The authors' for Anthropic HH and IMDb."""

    beta: PositiveFloat = 0.1
    """KL-regularisation strength; it multiplies log-ratios and KL alike."""

    def prepare(self, context: ActivationContext) -> Mapping[str, TokenColumns]:
        """The mask of every answer, as its token weights."""
        return {role: TokenColumns.of(weight=context.activations(role)) for role in context.roles}

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,): tdpo1 under the mask."""
        return dpo_loss(regret_margin(pair), beta=self.beta)

    def measures(self, pair: Pair) -> Terms:
        """Margin and accuracy of the loss; each side's masked score, KL and masked KL."""
        return {**margin_measures(regret_margin(pair), beta=self.beta), **side_measures(pair, beta=self.beta)}
