"""Generalised advantage estimation over token rewards, and the returns for fitting a value function.

    delta_t = r_t + gamma V_(t+1) - V_t;  A_t = delta_t + gamma lam A_(t+1);  return_t = A_t + V_t

Source: Schulman et al. 2016, https://arxiv.org/abs/1506.02438, eq. 16.
Deviations: tokens that do not train are skipped: the next token is the next one of the same answer [choice].
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Values = Float[Tensor, "B T"]


class Advantages(NamedTuple):
    """Advantages and returns of every token; 0 outside the mask."""

    advantages: Values
    returns: Values


def gae(rewards: Values, values: Values, mask: Bool[Tensor, "B T"], *, gamma: float, lam: float) -> Advantages:
    """Advantages and returns; after an answer's last token the value is 0. Not whitened."""
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    following = carried = values.new_zeros(len(values))
    found = []
    for t in reversed(range(mask.shape[1])):
        here = mask[:, t]
        delta = rewards[:, t] + gamma * following - values[:, t]
        carried = torch.where(here, delta + gamma * lam * carried, carried)
        following = torch.where(here, values[:, t], following)
        found.append(torch.where(here, carried, 0.0))
    advantages = torch.stack(found[::-1], 1) if found else torch.zeros_like(values)
    return Advantages(advantages, torch.where(mask, advantages + values, 0.0))
