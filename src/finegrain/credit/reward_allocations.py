"""Allocations that write a reward for every token and no weight, for objectives that learn rewards.

Source: interpolation with the end: https://arxiv.org/abs/2402.00782 (and https://arxiv.org/abs/2411.08302, eq. 7); even split, end and the
normaliser by place: https://arxiv.org/abs/2501.02790.
Deviations: the normaliser is fitted to the answers of the run itself, where the authors take a calibration set [OURS].
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.checked import Range, Share, checked
from finegrain.credit.allocations import Allocated, Segmented
from finegrain.credit.answers import map_blocks, score_segments
from finegrain.credit.redistribute import mix_with_end
from finegrain.credit.signal_facts import Direction, SignalFacts
from finegrain.errors import CreditError, UsageError
from finegrain.ops.location import EndOnly, EvenSplit, LocationNormaliser, Spread, fit_location
from finegrain.ops.segment_scores import Last, SegmentScore
from finegrain.ops.segments import place_in_row, segment_ends, segment_sum, without_closing
from finegrain.types import WeightMeaning

Tokens = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]
Ids = Int[Tensor, "B T"]

ABC_SHARE = 0.8
"""Of a reward that is spread, where neither signal nor allocation says another: attention-based credit's."""


def check_additive(facts: SignalFacts, who: str) -> None:
    """Raises UsageError for a signal that is no reward of the answer in parts."""
    if not facts.additive:
        raise UsageError(
            f"{who} keeps the sum of an answer's reward, but the signal {facts.name} gives no reward of the answer to keep; take "
            "credit.signal:prefix-difference, attention or uniform with a reward model as --credit.scorer, implicit, table or column"
        )


def spread_sum(within: EvenSplit | EndOnly, values: Tokens, ids: Ids) -> Tokens:
    """The sum of each segment's values, spread over its tokens: the sum of an answer stays."""
    return within(torch.where(segment_ends(ids), segment_sum(values, ids), 0.0), ids)


@dataclass(frozen=True, kw_only=True)
@checked
class Redistribute:
    """The reward of each segment, in equal parts on its tokens or at its end; an answer's sum stays."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.NOTHING

    within: EvenSplit | EndOnly = field(default_factory=EvenSplit)
    """Where in a segment its reward stands: even-split or end-only."""

    def check(self, facts: SignalFacts) -> None:
        """Raises UsageError for a signal without a reward of the answer."""
        check_additive(facts, "credit.allocation:redistribute")

    def __call__(self, given: Segmented) -> Allocated:
        """Rewards alone."""
        return Allocated(None, score_segments(lambda values, ids: spread_sum(self.within, values, ids), given.values, given.ids, given.masks))


@dataclass(frozen=True, kw_only=True)
@checked
class Interpolate:
    """A part of the answer's reward spread by the signal, the rest at the answer's end: abc's and r3hf's."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.NOTHING

    share: Share | None = None
    """How much is spread; none: the signal's own share (0.8 for attention, 1 for prefix-difference and uniform), and 0.8 for others."""
    within: EvenSplit | EndOnly = field(default_factory=EvenSplit)
    """Where in a segment its reward stands: even-split or end-only."""

    def check(self, facts: SignalFacts) -> None:
        """Raises UsageError for a signal without a reward of the answer."""
        check_additive(facts, "credit.allocation:interpolate")

    def __call__(self, given: Segmented) -> Allocated:
        """Rewards alone."""
        share = ABC_SHARE if self.share is None else self.share
        both = list(zip(given.values, given.answers, strict=True))
        sums = [value.sum() if answer.total is None else torch.as_tensor(answer.total) for value, answer in both]
        totals = [total.to(value.dtype).expand(len(value)) for total, value in zip(sums, given.values, strict=True)]

        def mixed(values: Tokens, ids: Ids, mask: Mask, total: Tokens) -> Tokens:
            dense = spread_sum(self.within, values, torch.where(mask, ids, -1))
            return mix_with_end(dense, total[:, 0], mask, share=share)

        return Allocated(None, map_blocks(mixed, given.values, given.ids, given.masks, totals))


@dataclass(frozen=True, kw_only=True)
@checked
class ByLocation:
    """Scores of segments less their mean, by their standard deviation, at their place in the answer, placed on their tokens: segment-reward's.

    The token that closes a turn is in no segment and gets 0.
    """

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.NOTHING

    score: SegmentScore = field(default_factory=Last)
    """Score of a segment; a segment reward model is read at the last token."""
    within: Spread = field(default_factory=EvenSplit)
    """How the score comes to the tokens: even-split (they add up to it), repeat or end-only."""
    floor: Annotated[float, Range(0.0, 1.0, low_open=True)] = 0.1
    """Smallest standard deviation, as a share of the one at the answer's end [OURS]."""

    def check(self, facts: SignalFacts) -> None:
        """Raises UsageError for a signal that is neither good nor bad."""
        if facts.direction is Direction.NONE:
            raise UsageError(
                f"credit.allocation:by-location makes rewards that are above or below their place's mean, but of the signal {facts.name} "
                f"{facts.direction.value}; take credit.signal:head with a reward model as --credit.scorer"
            )

    def __call__(self, given: Segmented) -> Allocated:
        """Rewards alone."""
        ids = map_blocks(lambda ids, mask: without_closing(torch.where(mask, ids, -1), mask), given.ids, given.masks)
        inside = [own >= 0 for own in ids]
        scores = score_segments(self.score, given.values, ids, inside)
        normalise = fit_places(scores, ids, floor=self.floor)
        return Allocated(None, map_blocks(lambda *block: place_rewards(normalise, self.within, *block), scores, ids, inside))


def fit_places(scores: list[Tensor], ids: list[Tensor], *, floor: float) -> LocationNormaliser:
    """The scale of all answers' segments by place; raises CreditError where there are too few of them."""
    places, found = [], []
    for own, segment in zip(scores, ids, strict=True):
        ends = segment_ends(segment[None])[0]
        places.append(place_in_row(segment[None])[0][ends].double().numpy())
        found.append(own[ends].double().numpy())
    fitted = fit_location(np.concatenate(places), np.concatenate(found))
    if fitted is None:
        raise CreditError(
            "credit.allocation:by-location needs several answers with segments at the same places to fit a scale by place, and these have too few; "
            "take a segmenter that cuts more, or credit.allocation:redistribute"
        )
    return LocationNormaliser(**{**fitted.as_json(), "floor": floor})


def place_rewards(normalise: LocationNormaliser, within: Spread, scores: Tokens, ids: Ids, mask: Mask) -> Tokens:
    """Scores of segments, at their tokens, normalised by place and put on the tokens."""
    segment = torch.where(mask, ids, -1)
    ends = segment_ends(segment)
    return within(torch.where(ends, normalise(torch.where(ends, scores, 0.0), place_in_row(segment)), 0.0), segment)
