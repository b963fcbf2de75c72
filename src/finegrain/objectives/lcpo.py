"""Latent collective preference optimisation (LCPO, also RPO and RE-PO): any pair loss under the probability that its label is right.

    odds = L(rejected > chosen) - L(chosen > rejected),  log p = log sigma(odds)          the pair's probability under the policy
    w = sigma(odds + logit eta_k)                                                          that annotator k's label is right (no gradient)
    loss = -w log p - (1 - w) log(1 - p),     eta_k <- (1 - a) eta_k + a mean of w over the step's rows of annotator k

Source: Cao et al., https://arxiv.org/abs/2509.24159, sections 3 and 4 (read in a reading note; the code is not obtainable).
Deviations: eta is updated once per optimiser step over all ranks, and kept in [0.5 + 1e-4, 1 - 1e-4], since below a half all labels invert
[choice]; `prior_rows` is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import NonNegativeFloat, Range, Share, checked
from finegrain.objectives.cpo import CPO
from finegrain.objectives.dpo import DPO
from finegrain.objectives.hinge import Hinge
from finegrain.objectives.ipo import IPO
from finegrain.objectives.ipo_averaged import IPOAveraged
from finegrain.objectives.orpo import ORPO
from finegrain.objectives.reference_free import ReferenceFree
from finegrain.objectives.sigmoid_norm import SigmoidNorm
from finegrain.objectives.simpo import SimPO
from finegrain.objectives.slic import SLiC
from finegrain.types import Pair, Term, Terms, row_losses

LOWEST, HIGHEST = 0.5 + 1e-4, 1 - 1e-4
"""Of a reliability that has been updated."""
RELIABILITY = "reliability"
TINY = 1e-12


def probability_right(odds: Float[Tensor, " B"], reliability: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """w: that a label is right, of the policy's log-odds for it and the reliability of who gave it."""
    return torch.sigmoid(odds + torch.logit(reliability))


@dataclass(frozen=True, kw_only=True)
class Gibbs:
    """The paper's: cross-entropy of w and p, whichever loss p is made of."""

    def __call__(self, right: Tensor, odds: Tensor, losses: tuple[Tensor, Tensor]) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        return -(right * logsigmoid(odds) + (1 - right) * logsigmoid(-odds))


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """The losses of the pair and of the swapped pair, weighted by w and 1 - w; the same as gibbs for dpo, another loss for ipo, simpo and hinge."""

    def __call__(self, right: Tensor, odds: Tensor, losses: tuple[Tensor, Tensor]) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        return right * losses[0] + (1 - right) * losses[1]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """One reliability for all rows: who gave a label is unknown."""

    @property
    def categories(self) -> tuple[str, ...]:
        """No column."""
        return ()

    def entries(self, categories: Mapping[str, int]) -> int:
        """One."""
        return 1

    def places(self, pair: Pair, rows: int) -> Tensor:
        """(B,) entry of each row."""
        return torch.zeros(rows, dtype=torch.long, device=next(iter(pair.sides.values())).mask.device)

    def rate(self, rate: float, rows: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """How far an entry moves towards its mean, of its rows in the step."""
        return torch.full_like(rows, rate)


@dataclass(frozen=True, kw_only=True)
@checked
class PerAnnotator:
    """One for each text of a column."""

    column: str = "annotator"
    """The column of the data that says who gave the label."""
    prior_rows: NonNegativeFloat = 0.0
    """Rows that what was known of an annotator counts for beside the step's n: the rate is multiplied by n / (n + prior_rows) [OURS]."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def entries(self, categories: Mapping[str, int]) -> int:
        """As many as there are texts."""
        return categories[self.column]

    def places(self, pair: Pair, rows: int) -> Tensor:
        """(B,) entry of each row."""
        return pair.columns[self.column].long()

    def rate(self, rate: float, rows: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """How far an entry moves towards its mean, of its rows in the step."""
        return rate * rows / (rows + self.prior_rows).clamp(min=TINY)


@dataclass(frozen=True, kw_only=True)
@checked
class LCPO:
    """Hyper-parameters of LCPO; rate, beta and what is needed are those of the loss that it is around."""

    base: DPO | IPO | IPOAveraged | SimPO | CPO | Hinge | SLiC | ORPO | ReferenceFree | SigmoidNorm = field(default_factory=DPO)
    """The loss of a pair."""
    annotators: Shared | PerAnnotator = field(default_factory=Shared)
    """shared, or per-annotator: whose reliability is estimated."""
    form: Gibbs | Weighted = field(default_factory=Gibbs)
    """gibbs, or weighted: how w enters the loss."""
    initial: Annotated[float, Range(0.5, 1.0)] = 0.9
    """Reliability before the first step."""
    rate: Share = 0.1
    """a: how far a step moves a reliability towards the mean of its rows; 0 keeps it."""

    @property
    def wraps(self) -> Any:
        """The loss of a pair."""
        return self.base

    @property
    def categories(self) -> tuple[str, ...]:
        """The column of annotators, where one is read."""
        return self.annotators.categories

    def make_state(self, categories: Mapping[str, int]) -> dict[str, Tensor]:
        """The reliabilities (K,)."""
        return {RELIABILITY: torch.full((self.annotators.entries(categories),), self.initial, dtype=torch.float64)}

    def after_step(self, state: Mapping[str, Tensor], pair: Pair) -> dict[str, Tensor]:
        """By entry, the sum of w and the number of rows, both by the rows' column `weight` where there is one."""
        empty = torch.zeros_like(state[RELIABILITY])
        right = self._right(pair)[0].to(empty)
        weight = pair.columns.get("weight", torch.ones_like(right)).to(empty)
        places = self.annotators.places(pair, len(right))
        return {"right": empty.index_add(0, places, weight * right), "rows": empty.index_add(0, places, weight)}

    def update_state(self, state: Mapping[str, Tensor], sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Reliabilities whose rows were in the step, moved towards the mean of their w."""
        before, rows = state[RELIABILITY], sums["rows"]
        rate = self.annotators.rate(self.rate, rows)
        moved = ((1 - rate) * before + rate * sums["right"] / rows.clamp(min=TINY)).clamp(LOWEST, HIGHEST)
        return {RELIABILITY: torch.where((rows > 0) & (rate > 0), moved, before)}

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        right, odds, losses = self._right(pair)
        return self.form(right, odds, losses)

    def measures(self, pair: Pair) -> Terms:
        """w, and the share of pairs whose label is more likely wrong than right."""
        right = self._right(pair)[0]
        one = torch.ones_like(right)
        return {"labels/right": Term(right, one), "labels/suspected": Term((right < 0.5).to(right.dtype), one)}

    def _right(self, pair: Pair) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """w without gradient, the odds, and the losses of the pair and of the swapped pair."""
        losses = row_losses(self.base(pair)), row_losses(self.base(pair.swapped()))
        odds = losses[1] - losses[0]
        reliability = pair.state[RELIABILITY][self.annotators.places(pair, len(odds))].to(odds.dtype)
        return probability_right(odds, reliability).detach(), odds, losses
