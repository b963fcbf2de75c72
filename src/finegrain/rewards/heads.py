"""Heads of reward models, which turn K outputs per token into scores of tokens and of answers.

A head scores a token from the hidden state that has read it. An answer's score is a readout of its tokens' scores, so
every head is trained from labels of whole answers and also scores tokens; with the readout `last` the tokens before the last one
are scored as if the answer ended there.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.ops.readout import Last, Mean, Minimum, Sum
from finegrain.ops.segments import segment_ends
from finegrain.rewards.declarations import HeadDeclarations, read_head
from finegrain.types import Scored, Side

Outputs = Float[Tensor, "B T K"]
Mask = Bool[Tensor, "B T"]
Readout = Sum | Mean | Last | Minimum
ReadOut = Callable[[Float[Tensor, "B T"], Mask], Float[Tensor, " B"]]
"""Any of these readouts, or a head's own."""


@runtime_checkable
class RewardHead(Protocol):
    """A head: how many outputs it has, and what they mean. `declarations.HeadDeclarations` lists what it may declare."""

    @property
    def outputs(self) -> int:
        """K, outputs per token."""

    @property
    def readout(self) -> ReadOut:
        """How token scores are combined to the answer's."""

    def tokens(self, outputs: Outputs) -> Scored:
        """(B, T): mean, std where known, members where there are several."""

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The rows that a stock classification head of L labels needs to give the mean; L = 1 is a reward."""


def combine_members(members: Float[Tensor, "M ..."], member_std: Float[Tensor, "M ..."] | None = None) -> Scored:
    """Combines members: their mean, and their standard deviation (ddof 1), unknown for a single one.

    Members that are distributions are mixed in equal parts: mean variance plus variance of the means (ddof 0).
    """
    if member_std is not None:
        variance = member_std.square().mean(0) + members.var(0, correction=0)
        return Scored(members.mean(0), variance.clamp(min=1e-12).sqrt(), members, member_std)
    return Scored(members.mean(0), members.std(0) if len(members) > 1 else None, members)


def sequence_score(head: RewardHead, side: Side) -> Scored:
    """(B,): the readout of the token scores, with the resulting uncertainty.

    A head may have its own `answer`, and may read only certain tokens, its `read_positions`.
    """
    assert side.outputs is not None, "a reward head's outputs were not requested"
    declared = read_head(head)
    mask = side.mask if declared.read_positions is None else declared.read_positions(side)
    if declared.answer is not None:
        return declared.answer(torch.where(mask[..., None], side.outputs, 0.0), mask)
    return read_out(head.readout, _token_scores(declared, side.outputs, mask), mask)


def token_scores(head: RewardHead, outputs: Outputs, mask: Mask) -> Scored:
    """(B, T): the head's scores of an answer's tokens, after its `reweight_outputs` where it has any; undefined outside the mask."""
    return _token_scores(read_head(head), outputs, mask)


def aspect_scores(head: RewardHead, outputs: Outputs, mask: Mask) -> Mapping[str, Float[Tensor, "B T"]]:
    """The head's scores of an answer's tokens by aspect, 0 outside the mask; {} for a head without aspects."""
    own = read_head(head).token_aspects
    return {} if own is None else own(torch.where(mask[..., None], outputs, 0.0))


def _token_scores(declared: HeadDeclarations, outputs: Outputs, mask: Mask) -> Scored:
    outputs = torch.where(mask[..., None], outputs, 0.0)
    return declared.tokens(outputs if declared.reweight_outputs is None else declared.reweight_outputs(outputs, mask))


def find_segment_ends(head: RewardHead, side: Side) -> Mask:
    """Ends of the side's segments: the tokens that a head of segments or steps reads."""
    if side.segment is None:
        raise UsageError(
            f"{type(head).__name__} reads ends of segments or steps, but these answers have none: they are made before training, only for its rows; "
            "to score other answers, load the checkpoint as AutoModelForTokenClassification and read it at the ends of your segments"
        )
    return segment_ends(side.segment) & side.mask


def read_out(readout: ReadOut, tokens: Scored, mask: Mask) -> Scored:
    """An answer's score from those of its tokens: for each member where there are any, else by first-order propagation."""
    if tokens.members is None:
        return Scored(*_propagated(readout, tokens.mean, tokens.std, mask))
    if tokens.member_std is None:
        return combine_members(torch.stack([readout(member, mask) for member in tokens.members]))
    both = [_propagated(readout, mean, std, mask) for mean, std in zip(tokens.members, tokens.member_std, strict=True)]
    means, stds = zip(*both, strict=True)
    return combine_members(torch.stack(means), torch.stack(stds))


def _propagated(readout: ReadOut, tokens: Tensor, std: Tensor | None, mask: Mask) -> tuple[Tensor, Tensor | None]:
    """Mean and standard deviation of an answer whose tokens' errors are independent; exact for the linear readouts."""
    mean = readout(tokens, mask)
    if std is None:
        return mean, None
    with torch.enable_grad():
        at = tokens.detach().requires_grad_()
        (slope,) = torch.autograd.grad(readout(at, mask).sum(), at)
    variance = torch.where(mask, (slope * std).square(), 0.0).sum(-1)
    return mean, variance.clamp(min=1e-12).sqrt()
