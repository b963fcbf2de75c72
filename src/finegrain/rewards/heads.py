"""What a reward model's numbers per token mean: heads that turn K outputs per token into judgements of tokens and of answers.

A head reads the hidden state that has consumed the token it judges. An answer's score is a readout of its tokens' scores, so
every head is trained from labels of whole answers and judges tokens too; with the readout `last` the tokens before the last one
are judged as if the answer ended there.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.ops.readout import Last, Mean, Minimum, Sum
from finegrain.types import Scored, Side

Outputs = Float[Tensor, "B T K"]
Mask = Bool[Tensor, "B T"]
Readout = Sum | Mean | Last | Minimum

@runtime_checkable
class RewardHead(Protocol):
    """A head: how many outputs it has, and what they say."""

    @property
    def outputs(self) -> int:
        """K, numbers per token."""

    @property
    def readout(self) -> Readout:
        """How token scores become the answer's."""

    def tokens(self, outputs: Outputs) -> Scored:
        """(B, T): mean, std where it is known, members where there are several."""

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The rows that a stock classification head of L labels needs to give the mean; L = 1 is a reward."""


def of_members(members: Float[Tensor, "M ..."]) -> Scored:
    """Members as one judgement: their mean, and their spread (ddof 1), unknown for a single one."""
    return Scored(members.mean(0), members.std(0) if len(members) > 1 else None, members)


def sequence_score(head: RewardHead, side: Side) -> Scored:
    """(B,): the readout of the token scores, with the uncertainty that follows from theirs."""
    assert side.outputs is not None, "a reward head's outputs were not asked for"
    return read_out(head.readout, head.tokens(side.outputs), side.mask)


def read_out(readout: Readout, tokens: Scored, mask: Mask) -> Scored:
    """An answer's score from its tokens': members one by one where there are any, else by first-order propagation.

    Propagation takes the tokens' errors as independent; it is exact for the linear readouts.
    """
    if tokens.members is not None:
        return of_members(torch.stack([readout(member, mask) for member in tokens.members]))
    mean = readout(tokens.mean, mask)
    if tokens.std is None:
        return Scored(mean)
    with torch.enable_grad():
        at = tokens.mean.detach().requires_grad_()
        (slope,) = torch.autograd.grad(readout(at, mask).sum(), at)
    variance = torch.where(mask, (slope * tokens.std).square(), 0.0).sum(-1)
    return Scored(mean, variance.clamp(min=1e-12).sqrt())
