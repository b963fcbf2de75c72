"""How token values of an answer become one number: (values, mask) -> (B,). Float32 or wider; an answer without a token gets 0."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.ops.masked import masked_mean, masked_sum
from finegrain.ops.sequence import to_wide

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]
Rows = Float[Tensor, " B"]


@dataclass(frozen=True, kw_only=True)
class Sum:
    """The sum over the answer's tokens; for log-ratios it is the implicit reward of a preference-tuned policy (without beta)."""

    def __call__(self, values: Values, mask: Mask) -> Rows:
        """One number per answer."""
        return masked_sum(to_wide(values), mask)


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean over the answer's tokens."""

    def __call__(self, values: Values, mask: Mask) -> Rows:
        """One number per answer."""
        return masked_mean(to_wide(values), mask)


@dataclass(frozen=True, kw_only=True)
class Last:
    """The value at the answer's last token."""

    def __call__(self, values: Values, mask: Mask) -> Rows:
        """One number per answer."""
        return last_value(to_wide(values), mask)


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """The smallest value: an answer is as good as its worst token."""

    def __call__(self, values: Values, mask: Mask) -> Rows:
        """One number per answer."""
        least = torch.where(mask, to_wide(values), torch.inf).min(-1).values
        return torch.where(mask.any(-1), least, 0.0)


@dataclass(frozen=True, kw_only=True)
class NegativeNorm:
    """Minus the root of the summed squares: RewardBench's default for a policy without reference (`norm`)."""

    def __call__(self, values: Values, mask: Mask) -> Rows:
        """One number per answer."""
        size: Tensor = torch.linalg.vector_norm(torch.where(mask, to_wide(values), 0.0), dim=-1)
        return -size


Readout = Sum | Mean | Last | Minimum | NegativeNorm


def last_place(mask: Mask) -> Bool[Tensor, "B T"]:
    """True on the last token of each answer, also with padding and gaps in the mask."""
    later = mask.flip(1).cumsum(1).flip(1)
    return mask & (later == 1)


def place_before(mask: Mask) -> Int[Tensor, "B T"]:
    """Place of the mask's previous token before each place, whatever lies between; -1 where there is none."""
    seen = torch.where(mask, torch.arange(mask.shape[1], device=mask.device), -1).cummax(1).values
    return torch.cat([torch.full_like(seen[:, :1], -1), seen[:, :-1]], 1)


def last_value(values: Values, mask: Mask) -> Rows:
    """The value at the last token of the mask; 0 for an answer without one."""
    return masked_sum(values, last_place(mask))
