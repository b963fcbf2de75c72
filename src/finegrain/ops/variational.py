"""The cost and the fit of a Gaussian over token rewards: KL to its prior, and the likelihood of a temporal difference.

Source: AVRIL, https://arxiv.org/abs/2102.06483, and https://arxiv.org/abs/2411.09341, eq. 5 to 7.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.ops.masked import masked_sum
from finegrain.ops.sequence import to_wide

LOG_STD = (-5.0, 2.0)
"""Bounds of a log standard deviation: at zero width the likelihood diverges [choice]."""

HALF_LOG_TWO_PI = 0.9189385332046727

Values = Float[Tensor, "..."]


def gaussian_kl(mean: Values, log_std: Values) -> Values:
    """KL(N(mean, std^2) || N(0, 1)), nats: 1/2 (mean^2 + std^2 - 1 - log std^2)."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std


def scaled_kl(mean: Values, log_std: Values, prior_std: Float[Tensor, ""]) -> Values:
    """KL(N(mean, std^2) || N(0, prior_std^2)), nats: that to N(0, 1) of a reward in units of the prior's standard deviation."""
    return gaussian_kl(mean / prior_std, log_std - prior_std.log())


def gaussian_log_density(value: Values, mean: Values, log_std: Values) -> Values:
    """log N(value; mean, std^2), nats."""
    return -0.5 * ((value - mean) * (-log_std).exp()).square() - log_std - HALF_LOG_TWO_PI


class Evidence(NamedTuple):
    """Sums over an answer's transitions, weighted by token credit."""

    kl: Float[Tensor, " B"]
    """KL of the token rewards to their prior, nats."""
    fit: Float[Tensor, " B"]
    """Log-likelihood of the temporal differences under the token rewards, nats."""
    transitions: Float[Tensor, " B"]
    """Weight of the tokens that have a successor."""


class Differences(NamedTuple):
    """Temporal differences of an answer's tokens."""

    value: Float[Tensor, "B T"]
    """Q(s, a) - gamma Q(s', a'); 0 where there is no successor."""
    known: Bool[Tensor, "B T"]
    """True on tokens that are followed by a token of the same answer."""


def temporal_differences(q: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], *, gamma: float = 1.0) -> Differences:
    """For every token with a successor. Float32 or wider."""
    known, q = has_successor(mask), to_wide(q)
    return Differences(torch.where(known, q - gamma * take_next(torch.where(mask, q, 0.0)), 0.0), known)


def evidence(
    q: Float[Tensor, "B T"],
    outputs: Float[Tensor, "B T K"],
    mask: Bool[Tensor, "B T"],
    weight: Float[Tensor, "B T"],
    *,
    gamma: float = 1.0,
    prior_std: Float[Tensor, ""] | None = None,
) -> Evidence:
    """For every token that is followed by a token of the same answer: the reward is read where its token has been read.

    outputs[..., 0] is the mean, outputs[..., 1] the log standard deviation of the token's reward; the prior's is 1 by default. Float32 or wider.
    """
    (delta, followed), outputs = temporal_differences(q, mask, gamma=gamma), to_wide(outputs)
    mean = torch.where(followed, outputs[..., 0], 0.0)
    log_std = torch.where(followed, outputs[..., 1], 0.0).clamp(*LOG_STD)
    kl = gaussian_kl(mean, log_std) if prior_std is None else torch.where(followed, scaled_kl(mean, log_std, prior_std), 0.0)
    fit = gaussian_log_density(delta, mean, log_std)
    return Evidence(*(masked_sum(weight * values, followed) for values in (kl, fit, torch.ones_like(kl))))


def has_successor(mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """True where this token and the next one are both the answer's."""
    return mask & torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)


def take_next(values: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The value of each token's successor; 0 at the last position."""
    return torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)


def transition_loss(
    logp: Float[Tensor, " N"],
    q: Float[Tensor, " N"],
    next_q: Float[Tensor, " N"],
    mean: Float[Tensor, " N"],
    log_std: Float[Tensor, " N"],
    *,
    gamma: float = 1.0,
) -> Float[Tensor, " N"]:
    """AVRIL's negative evidence bound of single transitions: -log policy + KL(reward || prior) - log N(Q - gamma Q'; reward)."""
    return -logp + gaussian_kl(mean, log_std) - gaussian_log_density(q - gamma * next_q, mean, log_std)
