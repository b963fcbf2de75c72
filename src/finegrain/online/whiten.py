"""Whitening: numbers over tokens are shifted to mean 0 and divided by their standard deviation.

Source: TRL, verl and OpenRLHF, as their code runs it; advantages are whitened after returns are formed (Schulman et al. 2017,
https://arxiv.org/abs/1707.06347, leave it open).
Deviations: statistics are those of the whole buffer, whatever the minibatches and processes; of a single token the variance is taken as 0,
where verl stops and TRL gives NaN.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.ops.sequence import to_wide

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]

FLOOR = 1e-8
"""Added to an unbiased variance, and the least biased one: as in the three libraries."""


class Moments(NamedTuple):
    """Mean and variance over the chosen tokens of all answers."""

    mean: Tensor
    variance: Tensor

    def whiten(self, values: Tensor, *, keep_mean: bool = False) -> Tensor:
        """(values - mean) / sqrt(variance + 1e-8), at every place; with `keep_mean` the mean is added again."""
        whitened = (values - self.mean) * (self.variance + FLOOR).rsqrt()
        return whitened + self.mean if keep_mean else whitened


def moments(values: Values, mask: Mask, *, unbiased: bool = True) -> Moments:
    """Over the tokens where the mask is True; 0 and 0 where there is none, and variance 0 of a single one."""
    chosen = to_wide(values)[mask]
    if chosen.numel() == 0:
        return Moments(values.new_zeros(()), values.new_zeros(()))
    centred = chosen - chosen.mean()
    return Moments(chosen.mean(), centred.square().sum() / max(1, chosen.numel() - unbiased))


@dataclass(frozen=True, kw_only=True)
class WhitenUnbiased:
    """(A - mean) / sqrt(unbiased variance + 1e-8) over all tokens that train (TRL, verl)."""

    def __call__(self, advantage: Values, mask: Mask) -> Values:
        """0 outside the mask."""
        return torch.where(mask, moments(advantage, mask).whiten(advantage), 0.0)


@dataclass(frozen=True, kw_only=True)
class WhitenBiased:
    """(A - mean) / sqrt(max(biased variance, 1e-8)) over all tokens that train (OpenRLHF)."""

    def __call__(self, advantage: Values, mask: Mask) -> Values:
        """0 outside the mask."""
        found = moments(advantage, mask, unbiased=False)
        return torch.where(mask, (advantage - found.mean) * found.variance.clamp(min=FLOOR).rsqrt(), 0.0)


@dataclass(frozen=True, kw_only=True)
class CentreTokens:
    """A - mean over all tokens that train, without the division (OpenRLHF's `no_std_norm`)."""

    def __call__(self, advantage: Values, mask: Mask) -> Values:
        """0 outside the mask."""
        return torch.where(mask, advantage - moments(advantage, mask).mean, 0.0)


@dataclass(frozen=True, kw_only=True)
class Unwhitened:
    """The advantages as they are."""

    def __call__(self, advantage: Values, mask: Mask) -> Values:
        """0 outside the mask."""
        return torch.where(mask, advantage, 0.0)


Whitening = WhitenUnbiased | WhitenBiased | CentreTokens | Unwhitened
