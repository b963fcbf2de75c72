"""Balance of two parts of a loss: the weight of one part at which the other has a given share of the gradient.

Source: none; ours. Deviations: the paper on AVA does not give its weights of the terms; gradients of its bound are a hundred times the ranking's
on a pretrained model (docs/decisions/0015).
"""

import math
from dataclasses import dataclass
from typing import Annotated

from finegrain.checked import NonNegativeInt, Range, checked

LITTLE = 0.05
"""With a smaller share of the gradient a part hardly trains: a warning [OURS]."""


InnerShare = Annotated[float, Range(0.0, 1.0, low_open=True, high_open=True)]


@dataclass(frozen=True, kw_only=True)
@checked
class StartShare:
    """All terms except the ranking get one weight, at which the ranking has a given share of the first step's gradient on the backbone [OURS]."""

    share: InnerShare = 0.5
    """The ranking's share: the norm of its gradient over the sum of both norms [OURS]."""
    every: NonNegativeInt = 10
    """Steps between two measurements of both norms for the log, each of which costs a backward pass; 0 measures only the first step."""


@dataclass(frozen=True, kw_only=True)
@checked
class LiteralWeights:
    """The weights as given: the paper's sum."""

    every: NonNegativeInt = 10
    """Steps between two measurements of both norms for the log, each of which costs a backward pass; 0 measures only the first step."""


BalanceRule = StartShare | LiteralWeights


@dataclass(frozen=True, kw_only=True)
class Balance:
    """An objective's declaration of the terms that share one weight, and the rule for it."""

    bound: frozenset[str]
    """Names of these terms; the others are the ranking."""
    rule: BalanceRule
    bound_in_backbone: bool = True
    """False: these terms train only the heads."""

    def measured(self, step: int) -> bool:
        """Whether both norms are measured at the 0-based step."""
        return step == 0 or bool(self.rule.every and (step + 1) % self.rule.every == 0)

    def weight(self, ranking: float, bound: float) -> float:
        """The bound's weight, from the norms of both gradients at weight 1."""
        return bound_weight(ranking, bound, self.rule.share) if isinstance(self.rule, StartShare) else 1.0


def bound_weight(ranking: float, bound: float, share: float) -> float:
    """w at which ranking / (ranking + w bound) is the share; 1 where one of them has no gradient."""
    weight = ranking * (1 - share) / (share * bound) if bound > 0 else 0.0
    return weight if weight > 0 and math.isfinite(weight) else 1.0


def ranking_share(ranking: float, bound: float) -> float:
    """The ranking's share of both norms; 1 where neither has any."""
    return ranking / (ranking + bound) if ranking + bound > 0 else 1.0
