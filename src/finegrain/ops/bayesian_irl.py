"""Variational Bayesian inverse RL on answers: what AVA-d and AVA-p share, as settings with their terms.

    maximise  beta * sum_t log B(y_t) - sum_t KL(q_t || N(0, 1)) + lambda * sum_t log q_t(Q_t - gamma Q_{t+1})

q_t = N(mu_t, sd_t^2) is the reward of token t, read where it has been consumed [choice]: a causal state before it has not seen it.
Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 5 to 7, 13 and 14; AVRIL, https://arxiv.org/abs/2102.06483.
Deviations: every term is a mean over its own tokens, transitions or pairs [choice], so that answers of any length weigh alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, Share, checked
from finegrain.ops.action_values import LogProb, QForm, Wanted, Weighed
from finegrain.ops.masked import masked_sum
from finegrain.ops.reward_weight import Attention, RewardWeight
from finegrain.ops.sequence import token_weight, wide
from finegrain.ops.variational import evidence, has_successor
from finegrain.types import Side, Term, Terms


@dataclass(frozen=True, kw_only=True)
class EveryToken:
    """All response tokens, the end token too [choice]."""

    def __call__(self, mask: Tensor) -> Tensor:
        """(B, T) bool."""
        return mask


@dataclass(frozen=True, kw_only=True)
class Followed:
    """Tokens that have a successor: the paper's literal range, which never trains the last token."""

    def __call__(self, mask: Tensor) -> Tensor:
        """(B, T) bool."""
        return has_successor(mask)


@dataclass(frozen=True, kw_only=True)
@checked
class Inference:
    """Settings of the bound; the paper gives no values of its weights, AVRIL's code has 1 throughout."""

    beta: NonNegativeFloat = 1.0
    """Weight of the likelihood of the demonstrated tokens."""
    kl: NonNegativeFloat = 1.0
    """Weight of the token rewards' KL to N(0, 1); 0 together with `td` is the ablation without inverse RL."""
    td: NonNegativeFloat = 1.0
    """lambda: weight of the likelihood of the temporal differences."""
    gamma: Share = 1.0
    """Discount within an answer."""
    action_value: QForm = field(default_factory=LogProb)
    """What Q is: log-prob [choice], softmax-prob (eq. 12 as printed), raw-logits, fresh-head."""
    likelihood: EveryToken | Followed = field(default_factory=EveryToken)
    """Which tokens the likelihood counts: every-token, followed."""

    def needs_logits(self, reward_weight: RewardWeight) -> Wanted | None:
        """What the scorer has to compute; None where log pi itself is Q."""
        if isinstance(reward_weight, Attention):
            return Weighed(form=self.action_value, weight=reward_weight)
        return None if self.action_value == LogProb() else self.action_value

    def q_logp(self, side: Side) -> Float[Tensor, "B T"]:
        """log B of the taken tokens, nats."""
        return wide(side.logp if side.q_logp is None else side.q_logp)

    def demonstrated(self, side: Side) -> Term:
        """Negative log-likelihood of an answer that is to be imitated."""
        counted, weight, logp = self.likelihood(side.mask), token_weight(side), self.q_logp(side)
        return Term(-masked_sum(weight * logp, counted), masked_sum(weight, counted), self.beta)

    def bound(self, sides: Sequence[Side]) -> Terms:
        """KL and temporal-difference terms of some answers, together."""
        parts = []
        for side in sides:
            assert side.outputs is not None, "the reward's outputs were not asked for"
            q = side.logp if side.q is None else side.q
            parts.append(evidence(q, side.outputs, side.mask, token_weight(side), gamma=self.gamma))
        kl, fit, count = (torch.stack(values).sum(0) for values in zip(*parts, strict=True))
        return {"kl": Term(kl, count, self.kl), "td": Term(-fit, count, self.td)}
