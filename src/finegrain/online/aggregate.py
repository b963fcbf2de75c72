"""From losses of tokens to a term of the step: (losses, token weights) -> per-row sums and counts.

The loop divides the sum by the count over the whole optimiser step, all micro-batches and processes.
Source: TRL, verl and OpenRLHF; without the answers' lengths in the divisor: Dr. GRPO, https://arxiv.org/abs/2503.20783.
Deviations: an answer of which no token trains is no answer, in every divisor; TRL counts it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveInt, checked
from finegrain.types import Term

Values = Float[Tensor, "B T"]


def _sums(losses: Values, weight: Values) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Weighted sums of each row, and its weight; what stands where the weight is 0 reaches neither."""
    return (torch.where(weight != 0, losses, 0.0) * weight).sum(-1), weight.sum(-1)


@dataclass(frozen=True, kw_only=True)
class TokenMean:
    """The mean over all tokens of the step (verl, OpenRLHF, TRL's dapo): long answers count more."""

    def __call__(self, losses: Values, weight: Values) -> Term:
        """Sum of losses and of weights."""
        return Term(*_sums(losses, weight))


@dataclass(frozen=True, kw_only=True)
class SeqMeanTokenMean:
    """The mean over answers of their means over tokens (TRL's grpo): answers count alike, and a token of a long one less."""

    def __call__(self, losses: Values, weight: Values) -> Term:
        """Mean loss and 1; weights that sum to less than 1 are divided by 1."""
        total, kept = _sums(losses, weight)
        return Term(total / kept.clamp(min=1), (kept > 0).to(total.dtype))


@dataclass(frozen=True, kw_only=True)
class SeqMeanTokenSum:
    """The mean over answers of their sums over tokens."""

    def __call__(self, losses: Values, weight: Values) -> Term:
        """Sum of losses and 1."""
        total, kept = _sums(losses, weight)
        return Term(total, (kept > 0).to(total.dtype))


@dataclass(frozen=True, kw_only=True)
@checked
class SeqMeanTokenSumNorm:
    """The mean over answers of their sums over tokens, divided by one constant length (Dr. GRPO)."""

    length: PositiveInt = 512
    """The divisor, e.g. the largest number of tokens of an answer."""

    def __call__(self, losses: Values, weight: Values) -> Term:
        """Sum of losses, and the constant length."""
        total, kept = _sums(losses, weight)
        return Term(total, (kept > 0).to(total.dtype) * self.length)


Aggregate = TokenMean | SeqMeanTokenMean | SeqMeanTokenSum | SeqMeanTokenSumNorm
