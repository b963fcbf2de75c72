"""Generalised advantage estimation over token rewards, returns to go, and the returns for fitting a value function.

    delta_t = r_t + gamma V_(t+1) - V_t;  A_t = delta_t + gamma lam A_(t+1);  return_t = A_t + V_t

Source: Schulman et al. 2016, https://arxiv.org/abs/1506.02438, eq. 16; returns to go are those of REINFORCE++, https://arxiv.org/abs/2501.03262.
Deviations: tokens that do not train are skipped: the next token is the next one of the same answer [choice], as in verl; the other rule,
OpenRLHF's, is `RunThrough`.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.checked import Share, checked
from finegrain.online.token_rewards import Estimate, TokenRewards

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]


class Advantages(NamedTuple):
    """Advantages and returns of every token; 0 outside the mask."""

    advantages: Values
    returns: Values


def carry_advantages(rewards: Values, values: Values, mask: Mask, *, gamma: float, lam: float) -> Values:
    """The advantages, and at a place that does not train that of the next one that does (0 behind the last)."""
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    following = carried = values.new_zeros(len(values))
    found = []
    for t in reversed(range(mask.shape[1])):
        here = mask[:, t]
        delta = rewards[:, t] + gamma * following - values[:, t]
        carried = torch.where(here, delta + gamma * lam * carried, carried)
        following = torch.where(here, values[:, t], following)
        found.append(carried)
    return torch.stack(found[::-1], 1) if found else torch.zeros_like(values)


def gae(rewards: Values, values: Values, mask: Mask, *, gamma: float, lam: float) -> Advantages:
    """Advantages and returns; after an answer's last token the value is 0. Not whitened."""
    advantages = torch.where(mask, carry_advantages(rewards, values, mask, gamma=gamma, lam=lam), 0.0)
    return Advantages(advantages, torch.where(mask, advantages + values, 0.0))


@dataclass(frozen=True, kw_only=True)
class CarryAcross:
    """Tokens of others within an answer are no time: value and advantage are carried across them (verl)."""

    def __call__(self, rewards: Values, values: Values, mask: Mask, gamma: float, lam: float) -> Advantages:
        """Advantages and returns."""
        return gae(rewards, values, mask, gamma=gamma, lam=lam)


@dataclass(frozen=True, kw_only=True)
class RunThrough:
    """They are time without reward and with value 0, through which the recursion runs (OpenRLHF)."""

    def __call__(self, rewards: Values, values: Values, mask: Mask, gamma: float, lam: float) -> Advantages:
        """Advantages and returns."""
        rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
        found = gae(rewards, values, torch.ones_like(mask), gamma=gamma, lam=lam)
        return Advantages(torch.where(mask, found.advantages, 0.0), torch.where(mask, found.returns, 0.0))


Holes = CarryAcross | RunThrough


@dataclass(frozen=True, kw_only=True)
@checked
class GAE:
    """Generalised advantage estimation with a critic's values."""

    erases_density: ClassVar[bool] = False
    reads_values: ClassVar[bool] = True

    gamma: Share = 1.0
    """Discount per token."""
    lam: Share = 0.95
    """1: the return minus the value; 0: the error of one step. TRL's PPO; OpenRLHF and verl have 1."""
    holes: Holes = field(default_factory=CarryAcross)
    """What tokens of others within an answer are."""

    def __call__(self, rewards: TokenRewards) -> Estimate:
        """Advantages and returns of the rewards with the leash."""
        return Estimate(*self.holes(rewards.total, rewards.values, rewards.mask, self.gamma, self.lam))


@dataclass(frozen=True, kw_only=True)
@checked
class Returns:
    """The reward to go, without a baseline: REINFORCE++, where whitening over the buffer follows."""

    erases_density: ClassVar[bool] = False
    reads_values: ClassVar[bool] = False

    gamma: Share = 1.0
    """Discount per token."""

    def __call__(self, rewards: TokenRewards) -> Estimate:
        """G_t = r_t + gamma G_(t+1), with the leash."""
        total = rewards.total
        return Estimate(gae(total, torch.zeros_like(total), rewards.mask, gamma=self.gamma, lam=1.0).advantages, None)
