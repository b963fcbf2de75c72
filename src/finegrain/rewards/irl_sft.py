"""A reward that separates demonstrations from a model's own samples: the reward step of RFT, on chosen = demonstration and rejected = sample.

    aligned   mean over t of -log sigma(r_t(demonstration) - r_t(sample)), t from the first token in which the two differ
    linear    -(r(demonstration) - r(sample)) + regulariser / 2 * (r(demonstration)^2 + r(sample)^2)

Source: Li et al. 2024, https://arxiv.org/abs/2405.17888; aligned as in the authors' code, linear as the paper's gradient (reconstructed).
Deviations: positions end where the shorter answer ends, and the end token counts [choice]; the released range, which includes padding and excludes
the end token, is `released_range`. The linear step's regulariser is ours [OURS]: without it the loss is unbounded below.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from finegrain.checked import PositiveFloat, checked
from finegrain.errors import DataError
from finegrain.ops.masked import masked_mean
from finegrain.ops.readout import Mask, Values, last_place, last_value
from finegrain.ops.sequence import to_wide
from finegrain.rewards.columns import AnswerContext, weight_columns
from finegrain.rewards.heads import sequence_score
from finegrain.rewards.token import Token
from finegrain.types import Pair, Side, Term, Terms, TokenColumns


def aligned_loss(chosen: Values, rejected: Values, counted: Mask) -> Float[Tensor, " B"]:
    """Mean of -log sigma(chosen - rejected) over the positions that count; 0 for a pair without any."""
    return masked_mean(-logsigmoid(torch.where(counted, chosen - rejected, 0.0)), counted)


def first_difference(first: np.ndarray, second: np.ndarray) -> int:
    """Position of the first token in which two answers differ; the shorter one's length where it is a prefix of the other."""
    shorter = min(len(first), len(second))
    differs = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(differs[0]) if len(differs) else shorter


def released_range(chosen: Int[Tensor, "B T"], rejected: Int[Tensor, "B T"], pad_id: int) -> Mask:
    """The authors' positions of padded rows: from the first difference to the later of the two first pads, including the shorter one's padding."""
    place = torch.arange(chosen.shape[1])
    starts = (chosen != rejected).int().argmax(1, keepdim=True)
    ends = torch.stack([torch.where((ids == pad_id).any(1), (ids == pad_id).int().argmax(1), ids.shape[1]) for ids in (chosen, rejected)])
    return (place >= starts) & (place < ends.amax(0)[:, None]) & (chosen != rejected).any(1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Both:
    """Positions at which both answers have a token [choice]; padding is left out."""

    def __call__(self, rewards: Values, mask: Mask, other: Mask) -> tuple[Values, Mask]:
        """Rewards of an answer, and the positions that count."""
        return rewards, mask & other


@dataclass(frozen=True, kw_only=True)
class Longer:
    """Up to the longer answer's end, as released: on the padding there, the shorter answer's last reward is used [choice]."""

    def __call__(self, rewards: Values, mask: Mask, other: Mask) -> tuple[Values, Mask]:
        """Rewards of an answer, and the positions that count."""
        past = (last_place(mask).cumsum(1) > 0) & ~mask
        return torch.where(past, last_value(rewards, mask)[:, None], rewards), (mask | past) & (mask | other)


@dataclass(frozen=True, kw_only=True)
@checked
class Aligned:
    """Token by token from the first difference on, as in the authors' code."""

    positions: Both | Longer = field(default_factory=Both)
    """both: where both have a token [choice]; longer: up to the longer answer's end, as released."""

    def reads(self, start: int, chosen: np.ndarray, rejected: np.ndarray) -> bool:
        """Whether both answers have a token at the first difference."""
        return start < min(len(chosen), len(rejected))

    def __call__(self, head: Token, pair: Pair, counted: Bool[Tensor, " B"]) -> Terms:
        """The loss of each pair, a mean over its positions."""
        width = max(side.mask.shape[1] for side in (pair.chosen, pair.rejected))
        (chosen, own), (rejected, others) = (_from_difference(head, side, width) for side in (pair.chosen, pair.rejected))
        chosen, first = self.positions(chosen, own, others)
        rejected, second = self.positions(rejected, others, own)
        loss = aligned_loss(chosen, rejected, first & second & counted[:, None])
        return {"aligned": Term(loss, ((first & second).any(1) & counted).to(loss.dtype))}


@dataclass(frozen=True, kw_only=True)
@checked
class Linear:
    """The difference of scores, without a link: the gradient of maximum-likelihood inverse RL."""

    regulariser: PositiveFloat = 1.0
    """Weight of the scores' squares [OURS], without which the loss has no minimum; the optimal scores are +-1 over it."""

    def reads(self, start: int, chosen: np.ndarray, rejected: np.ndarray) -> bool:
        """Whether they differ."""
        return start < max(len(chosen), len(rejected))

    def __call__(self, head: Token, pair: Pair, counted: Bool[Tensor, " B"]) -> Terms:
        """The loss of each pair."""
        chosen, rejected = (sequence_score(head, side).mean for side in (pair.chosen, pair.rejected))
        loss = rejected - chosen + self.regulariser / 2 * (chosen.square() + rejected.square())
        return {"linear": Term(torch.where(counted, loss, 0.0), counted.to(loss.dtype))}


@dataclass(frozen=True, kw_only=True)
@checked
class IRLSFT:
    """Hyper-parameters of the reward step; a pair's `weight` column multiplies it."""

    roles: ClassVar[tuple[str, ...]] = ("chosen", "rejected")
    head_kind: ClassVar[type] = Token
    token_columns: ClassVar[tuple[str, ...]] = ("weight",)

    step: Aligned | Linear = field(default_factory=Aligned)
    """aligned: token by token, as released; linear: the paper's, on whole scores."""

    def prepare(self, head: Token, context: AnswerContext) -> Mapping[str, TokenColumns]:
        """Weight 1 from the first difference on, 0 before it; identical pairs, and answers cut before they differ, have none and do not train."""
        pairs = list(zip(context.token_ids("chosen"), context.token_ids("rejected"), strict=True))
        starts = [first_difference(*pair) for pair in pairs]
        same = [start == len(chosen) == len(rejected) for start, (chosen, rejected) in zip(starts, pairs, strict=True)]
        apart = [self.step.reads(start, *pair) for start, pair in zip(starts, pairs, strict=True)]
        facts = {"pairs": len(pairs), "identical_left_out": sum(same), "one_begins_the_other_left_out": len(pairs) - sum(same) - sum(apart)}
        context.note("first_difference", facts)
        if context.trains and not any(apart):
            raise DataError(f"the sample equals the demonstration in all {len(pairs)} pairs; sample answers from the policy first")
        found = {}
        for role, place in (("chosen", 0), ("rejected", 1)):
            weights = [(np.arange(len(pair[place])) >= start).astype(np.float32) for pair, start in zip(pairs, starts, strict=True)]
            found[role] = weight_columns(weights, apart)
        return found

    def __call__(self, head: Token, pair: Pair) -> Terms:
        """The step's loss of every pair that differs."""
        return self.step(head, pair, pair.columns.get("annotated/chosen", torch.ones_like(pair.columns["row"])) > 0.5)


def _from_difference(head: Token, side: Side, width: int) -> tuple[Values, Mask]:
    """Rewards and tokens from the first difference on, padded on the right."""
    assert side.outputs is not None
    assert side.weight is not None, "the first difference is a column made before training"
    rewards = to_wide(head.tokens(torch.where(side.mask[..., None], side.outputs, 0.0)).mean)
    own = side.mask & (torch.where(side.mask, side.weight, 0.0) > 0.5)
    more = (0, width - side.mask.shape[1])
    return pad(rewards, more), pad(own, more)
