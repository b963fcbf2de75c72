"""Sequence-level uses of a token scorer: whole answers' rewards, the sums of their token rewards, as soft labels and as margins.

Source: soft labels: Mitchell 2023, https://ericmitchell.ai/cdpo.pdf, eq. 3 with a rate per pair; margins: Fisch et al. 2024,
https://arxiv.org/abs/2405.19316, eq. 6 (both numbers: memory).
Deviations: the reward of an answer is the sum over its tokens, in nats.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, checked
from finegrain.objectives.dpo import dpo_loss
from finegrain.ops.sequence import to_wide
from finegrain.types import Pair, Side, WeightMeaning


def answer_reward(side: Side) -> Float[Tensor, " B"]:
    """Sum of the token rewards of each answer."""
    if side.reward is None:
        raise ValueError("a sequence-level use of a scorer needs a credit that writes token rewards")
    return torch.where(side.mask, to_wide(side.reward), 0.0).sum(-1)


def unweighted_log_ratio(side: Side) -> Float[Tensor, " B"]:
    """Log-ratio of each answer over all its tokens, nats: the credit's weight is the scorer's certainty, not a part of the label."""
    if side.ref_logp is None:
        raise ValueError("a sequence-level use of a scorer needs reference log-probabilities")
    return torch.where(side.mask, to_wide(side.logp) - to_wide(side.ref_logp), 0.0).sum(-1)


def _margins(pair: Pair) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Of the policy in nats, and of the scorer."""
    ratios = unweighted_log_ratio(pair.chosen) - unweighted_log_ratio(pair.rejected)
    return ratios, answer_reward(pair.chosen) - answer_reward(pair.rejected)


@dataclass(frozen=True, kw_only=True)
@checked
class SoftLabel:
    """DPO whose label is correct with the probability that the scorer gives it."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference", "reward"})
    weights: ClassVar[frozenset[WeightMeaning]] = frozenset({WeightMeaning.CERTAINTY})

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        margin, reward = _margins(pair)
        right = torch.sigmoid(reward)
        return right * dpo_loss(margin, beta=self.beta) + (1 - right) * dpo_loss(-margin, beta=self.beta)


@dataclass(frozen=True, kw_only=True)
@checked
class MarginRegression:
    """Squared distance of beta times the policy's margin from the scorer's."""

    needs: ClassVar[frozenset[str]] = frozenset({"reference", "reward"})
    weights: ClassVar[frozenset[WeightMeaning]] = frozenset({WeightMeaning.CERTAINTY})

    beta: PositiveFloat = 0.1
    """KL-regularisation strength."""

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        margin, reward = _margins(pair)
        return (self.beta * margin - reward).square()
