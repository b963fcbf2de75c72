"""Variational Bayesian inverse RL on answers: the settings and terms that AVA-d and AVA-p share.

    maximise  beta * sum_t log B(y_t) - sum_t KL(q_t || N(0, 1)) + lambda * sum_t log q_t(Q_t - gamma Q_{t+1})

q_t = N(mu_t, sd_t^2) is the reward of token t, read at the token's own position [choice]: an earlier causal state has not seen it.
Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 5 to 7, 13 and 14; AVRIL, https://arxiv.org/abs/2102.06483.
Deviations: every term is a mean over its own tokens, transitions or pairs [choice], so that answers of any length count alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finegrain.checked import NonNegativeFloat, Share, checked
from finegrain.ops.action_values import LogProb, QForm, Wanted, Weighed
from finegrain.ops.gaussian_layer import GaussianLayer
from finegrain.ops.masked import masked_sum
from finegrain.ops.reward_weight import Attention, RewardWeight, weigh_pair
from finegrain.ops.sequence import to_wide, token_weight
from finegrain.ops.variational import LOG_STD, evidence, has_successor, temporal_differences
from finegrain.types import Initialisation, Pair, Side, Summed, Term, Terms

BOUND = frozenset({"likelihood", "negative", "kl", "td"})
"""Names of the evidence bound's terms."""
TD_STD = "td_std"
"""Name of the table that holds the standard deviation of the start model's temporal differences."""


@dataclass(frozen=True, kw_only=True)
class EveryToken:
    """All response tokens, including the end token [choice]."""

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
class StartScale:
    """s, the standard deviation of the start model's temporal differences [OURS]: rewards must explain these, so prior and head start there."""

    def __call__(self, tables: Mapping[str, Tensor]) -> Float[Tensor, ""] | None:
        """s; None before it is known."""
        return tables[TD_STD][0] if TD_STD in tables else None


@dataclass(frozen=True, kw_only=True)
class UnitScale:
    """1, as printed: the prior is N(0, 1) and standard deviations start at 1, whatever the temporal differences are."""

    def __call__(self, tables: Mapping[str, Tensor]) -> Float[Tensor, ""] | None:
        """1, by None."""
        return None


@dataclass(frozen=True, kw_only=True)
@checked
class Inference:
    """Settings of the bound; the paper gives no values for its weights, AVRIL's code uses 1 throughout."""

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
    scale: StartScale | UnitScale = field(default_factory=StartScale)
    """Standard deviation of the prior, and of each reward at the start: start-scale, the start model's temporal differences' [OURS]; unit-scale."""

    def needs_logits(self, reward_weight: RewardWeight) -> Wanted | None:
        """What the scorer must compute; None where Q is log pi itself."""
        if isinstance(reward_weight, Attention):
            return Weighed(form=self.action_value, weight=reward_weight)
        return None if self.action_value == LogProb() else self.action_value

    def q_logp(self, side: Side) -> Float[Tensor, "B T"]:
        """log B of the taken tokens, nats."""
        return to_wide(side.logp if side.q_logp is None else side.q_logp)

    def demonstrated(self, side: Side) -> Term:
        """Negative log-likelihood of an answer that is to be imitated."""
        counted, weight, logp = self.likelihood(side.mask), token_weight(side), self.q_logp(side)
        return Term(-masked_sum(weight * logp, counted), masked_sum(weight, counted), self.beta)

    def bound(self, sides: Sequence[Side], tables: Mapping[str, Tensor]) -> Terms:
        """KL and temporal-difference terms of some answers, together."""
        parts, prior_std = [], self.scale(tables)
        for side in sides:
            assert side.outputs is not None, "the reward's outputs were not requested"
            parts.append(evidence(_q(side), side.outputs, side.mask, token_weight(side), gamma=self.gamma, prior_std=prior_std))
        kl, fit, count = (torch.stack(values).sum(0) for values in zip(*parts, strict=True))
        return {"kl": Term(kl, count, self.kl), "td": Term(-fit, count, self.td)}

    def start(self, reward_weight: RewardWeight) -> Initialisation | None:
        """Prior and head at the standard deviation of the start model's temporal differences; None where the scale is given."""
        if not isinstance(self.scale, StartScale):
            return None
        return Initialisation({TD_STD: torch.ones(1)}, lambda pair: self._moments(weigh_pair(reward_weight, pair)), _start_at)

    def _moments(self, pair: Pair) -> dict[str, Summed]:
        """Number, sum and sum of squares of the temporal differences of all answers, with token weights."""
        moments = []
        for side in pair.sides.values():
            delta, known = temporal_differences(_q(side), side.mask, gamma=self.gamma)
            weight = token_weight(side)
            moments.append(torch.stack([masked_sum(weight * delta**power, known).sum() for power in range(3)]))
        return {TD_STD: Summed(torch.stack(moments).sum(0))}

    def surprise(self, side: Side) -> Float[Tensor, " B"]:
        """Mean square of (delta - mean) / std over an answer's transitions: 1 where the rewards' std matches their error; NaN without any."""
        assert side.outputs is not None, "the reward's outputs were not requested"
        (delta, known), outputs = temporal_differences(_q(side), side.mask, gamma=self.gamma), to_wide(side.outputs)
        off = (delta - outputs[..., 0]) * (-outputs[..., 1].clamp(*LOG_STD)).exp()
        return masked_sum(off.square(), known) / known.sum(-1)

    def misfit(self, side: Side) -> Float[Tensor, " B"]:
        """Mean of -log q(delta) over an answer's transitions, nats; NaN without any."""
        assert side.outputs is not None, "the reward's outputs were not requested"
        found = evidence(_q(side), side.outputs, side.mask, token_weight(side), gamma=self.gamma)
        return -found.fit / found.transitions


def _start_at(moments: Mapping[str, Tensor], head: nn.Module) -> dict[str, Tensor]:
    """The standard deviation of temporal differences with these moments, as a table and as the head's bias; 1 where no token has a successor."""
    count, total, squares = moments[TD_STD].tolist()
    variance = squares / count - (total / count) ** 2 if count else 1.0
    std = min(max(math.sqrt(max(variance, 0.0)), math.exp(LOG_STD[0])), math.exp(LOG_STD[1]))
    assert isinstance(head, GaussianLayer)
    head.start_at(std)
    return {TD_STD: torch.tensor([std])}


def _q(side: Side) -> Float[Tensor, "B T"]:
    return side.logp if side.q is None else side.q
