"""Attention-based credit: the sequence reward in proportion to the reward model's attention.

Source: Chan et al. 2024, https://arxiv.org/abs/2402.00782; shares and mixture from the authors' code.
Deviations: tokens are selected by a mask, so padding on either side has no effect, where the authors slice by the prompt's length. A row
without any attention on the answer gets equal shares instead of 0/0. `LargestHead` is our own [OURS].
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import Share, checked
from finegrain.credit.redistribute import Mask, Rows, Tokens, distribute_by_shares, mix_with_end, uniform_shares
from finegrain.ops.masked import masked_sum
from finegrain.ops.readout import place_before
from finegrain.ops.sequence import to_wide


@dataclass(frozen=True, kw_only=True)
class HeadMean:
    """The mean over heads: the paper's."""

    def __call__(self, attention: Float[Tensor, "B H ..."]) -> Float[Tensor, "B ..."]:
        """One attention map per answer."""
        return to_wide(attention).mean(1)


@dataclass(frozen=True, kw_only=True)
class LargestHead:
    """The largest attention of any head, column by column [OURS]."""

    def __call__(self, attention: Float[Tensor, "B H ..."]) -> Float[Tensor, "B ..."]:
        """One map per answer; not a distribution before normalisation."""
        return to_wide(attention).amax(1)


Heads = HeadMean | LargestHead


def normalise_attention(attention: Tokens, mask: Mask) -> Tokens:
    """Attention on the answer's tokens as a distribution, detached: sums to 1 on the mask, 0 outside it; equal shares without attention."""
    inside = torch.where(mask, attention.detach(), 0.0)
    total = inside.sum(1, keepdim=True)
    shares = inside / torch.where(total > 0, total, torch.ones_like(total))
    return torch.where(total > 0, shares, uniform_shares(mask, inside.dtype))


def last_row(attention: Float[Tensor, "B H T"], mask: Mask, heads: Heads) -> Tokens:
    """Shares from a single row: the attention of the reward model's last layer at the answer's last token, in the answer's columns.

    The same row of the policy at its last generation step, passed to `shift_shares`, is the authors' ABC-D2.
    """
    return normalise_attention(heads(attention), mask)


def generation_rows(attention: Float[Tensor, "B H T T"], mask: Mask, heads: Heads) -> Tokens:
    """ABC-D: shares from the policy's own attention, row i is the step that generated token i; a column's mean over the later steps that saw it."""
    rows = torch.tril(torch.where(mask[:, :, None] & mask[:, None], heads(attention), 0.0), -1)
    seen = (rows != 0).sum(1).clamp(min=1)
    return shift_shares(rows.sum(1) / seen, mask)


def shift_shares(attention: Tokens, mask: Mask) -> Tokens:
    """Shares with each token's attention on the token after it, as in both of the authors' decoder variants; the first token gets none.

    The last column has no successor and is ignored. An answer of one token keeps its reward.
    """
    before = place_before(mask)
    moved = torch.where(mask & (before >= 0), attention.gather(1, before.clamp(min=0)), 0.0)
    return normalise_attention(moved, mask)


def share_entropy(shares: Tokens, mask: Mask) -> Rows:
    """Entropy of the shares in nats, per answer: near 0 one token takes all (such as an attention sink), log T is uniform."""
    return masked_sum(torch.special.entr(torch.where(mask, shares, 0.0)), mask)


@dataclass(frozen=True, kw_only=True)
@checked
class ABC:
    """Token rewards from attention and a sequence reward."""

    share: Share = 0.8
    """beta: the share of the reward that is spread; the rest is at the end. 0.8 in all the paper's runs, 0.5 by default in its code."""
    heads: Heads = field(default_factory=HeadMean)
    """How the heads are combined."""

    def __call__(self, attention: Float[Tensor, "B H T"], total: Rows, mask: Mask) -> Tokens:
        """Rewards (B, T) that sum to `total`, 0 outside the mask, detached; from the last row of the reward model's last layer."""
        return self.spread(last_row(attention, mask, self.heads), total, mask)

    def spread(self, shares: Tokens, total: Rows, mask: Mask) -> Tokens:
        """The same from other shares (`generation_rows`, `shift_shares`, equal ones)."""
        return mix_with_end(distribute_by_shares(shares, to_wide(total), mask), to_wide(total), mask, share=self.share)
