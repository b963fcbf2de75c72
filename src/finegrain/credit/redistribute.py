"""Distributes a sequence reward over tokens: at the end, in equal parts, in given shares, and mixtures that keep the sum.

Source: mixture of shares and end: https://arxiv.org/abs/2402.00782 (authors' code); of differences and end: https://arxiv.org/abs/2411.08302, eq. 7.
Deviations: none.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.ops.readout import last_place

Tokens = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]
Rows = Float[Tensor, " B"]


def sparse_reward(total: Rows, mask: Mask) -> Tokens:
    """The whole reward on the answer's last token, 0 elsewhere; sums to `total` (to 0 for an answer without tokens)."""
    return torch.where(last_place(mask), total.detach()[:, None], 0.0)


def uniform_shares(mask: Mask, dtype: torch.dtype = torch.float32) -> Tokens:
    """1/T on each of an answer's T tokens, 0 outside the mask: a distribution."""
    length = mask.sum(1, keepdim=True).clamp(min=1)
    return mask.to(dtype) / length


def distribute_by_shares(shares: Tokens, total: Rows, mask: Mask) -> Tokens:
    """The reward in the given shares: sums to `total` where they sum to 1."""
    return torch.where(mask, shares.detach() * total.detach()[:, None], 0.0)


def mix_with_end(dense: Tokens, total: Rows, mask: Mask, *, share: float) -> Tokens:
    """`share` of a dense reward, and the rest of `total` at the end."""
    return torch.where(mask, share * dense.detach() + (1 - share) * sparse_reward(total, mask), 0.0)
