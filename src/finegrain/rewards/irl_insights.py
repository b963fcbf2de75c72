"""The reward that explains a tuned model: losses that rank its answers above the base model's answers to the same prompts.

Source: Joselowitz et al. 2024, https://arxiv.org/abs/2410.12491; losses from the authors' code.
Deviations: at an exact tie the maximum-margin slope is -3/2, between its two sides; the authors' code has +1, the wrong direction.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finegrain.checked import NonNegativeFloat, checked
from finegrain.rewards.bradley_terry import pair_losses
from finegrain.rewards.heads import RewardHead
from finegrain.types import Pair

Rows = Float[Tensor, " B"]
Scores = Float[Tensor, "... B"]


@dataclass(frozen=True, kw_only=True)
class MaxMargin:
    """The margin itself, with mistakes counted twice: the paper's loss.

    Scales with the reward, so it has no minimum where the pairs are separable: stop early, or bound the head's norm.
    """

    def __call__(self, expert: Scores, other: Scores) -> Scores:
        """-d where d = expert - other is positive, -2 d where it is negative."""
        margin = expert - other
        return 0.5 * margin.abs() - 1.5 * margin


@dataclass(frozen=True, kw_only=True)
class Hinge:
    """No loss for margins above 1."""

    def __call__(self, expert: Scores, other: Scores) -> Scores:
        """max(0, 1 - d)."""
        return (1 - (expert - other)).relu()


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """Bradley-Terry: the loss of a preference reward model, expert chosen, base rejected."""

    def __call__(self, expert: Scores, other: Scores) -> Scores:
        """-log sigma(d)."""
        return -logsigmoid(expert - other)


@dataclass(frozen=True, kw_only=True)
class Squared:
    """Also in the authors' code; it drives margins to 0 and does not rank. Kept for comparison with their runs."""

    def __call__(self, expert: Scores, other: Scores) -> Scores:
        """d squared."""
        return (expert - other).square()


RankingLoss = MaxMargin | Hinge | Logistic | Squared


@dataclass(frozen=True, kw_only=True)
@checked
class IRLInsights:
    """Fits a reward to pairs of a tuned model's answer (chosen) and the base model's (rejected) to the same prompt."""

    roles: ClassVar[tuple[str, ...]] = ("chosen", "rejected")

    ranking: RankingLoss = field(default_factory=MaxMargin)
    """Loss of the margin."""
    centre: NonNegativeFloat = 0.0
    """Weight of (score(chosen) + score(rejected))^2, as in loss:bradley-terry."""

    def __call__(self, head: RewardHead, pair: Pair) -> Rows:
        """Per-row loss; for several members their mean, each under its own bootstrap weights."""
        return pair_losses(head, pair, lambda difference: self.ranking(difference, torch.zeros_like(difference)), self.centre)
