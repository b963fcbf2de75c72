"""Score of a segment from its token values, the baseline it is compared with, and the tokens whose segments agree with a side.

Source: keep rule against a baseline of 0: released code of the authors of https://arxiv.org/abs/2411.00809.
Deviations: the segment scores and every baseline other than 0 are our specification [OURS].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.checked import Range, checked
from finegrain.ops import segments
from finegrain.ops.segmenters import Ids, Values

Answers = Sequence[Float[Tensor, " _"]]
"""The scores of each answer's tokens, ragged."""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean over the segment."""

    def __call__(self, values: Values, ids: Ids) -> Values:
        """Segment scores at their tokens, 0 outside the mask."""
        return segments.segment_mean(values, ids)

    def std(self, std: Values, ids: Ids) -> Values:
        """Standard deviation of the segment score if the tokens' errors are independent [choice]."""
        length = segments.segment_length(ids, std.dtype).clamp(min=1)
        return segments.segment_sum(std.square(), ids).sqrt() / length


@dataclass(frozen=True, kw_only=True)
class Sum:
    """The sum over the segment; with differences of a value function it telescopes."""

    def __call__(self, values: Values, ids: Ids) -> Values:
        """Segment scores at their tokens, 0 outside the mask."""
        return segments.segment_sum(values, ids)

    def std(self, std: Values, ids: Ids) -> Values:
        """Standard deviation of the segment score if the tokens' errors are independent [choice]."""
        return segments.segment_sum(std.square(), ids).sqrt()


@dataclass(frozen=True, kw_only=True)
class Last:
    """The value at the segment's last token."""

    def __call__(self, values: Values, ids: Ids) -> Values:
        """Segment scores at their tokens, 0 outside the mask."""
        return segments.segment_last(values, ids)

    def std(self, std: Values, ids: Ids) -> Values:
        """Standard deviation of the segment score."""
        return segments.segment_last(std, ids)


SegmentScore = Mean | Sum | Last


@dataclass(frozen=True, kw_only=True)
@checked
class Constant:
    """The same number for every answer."""

    b: float = 0.0
    """In the units of the segment score."""

    def __call__(self, scores: Answers) -> Sequence[float]:
        """One baseline per answer."""
        return [self.b] * len(scores)


@dataclass(frozen=True, kw_only=True)
class ResponseMean:
    """The answer's own mean over tokens."""

    def __call__(self, scores: Answers) -> Sequence[float]:
        """One baseline per answer."""
        return [float(values.mean()) if len(values) else 0.0 for values in scores]


@dataclass(frozen=True, kw_only=True)
class BatchMean:
    """The mean over the tokens of all answers of both sides: for a signal whose zero is arbitrary."""

    def __call__(self, scores: Answers) -> Sequence[float]:
        """One baseline per answer."""
        return [float(torch.cat(list(scores)).double().mean())] * len(scores)


@dataclass(frozen=True, kw_only=True)
@checked
class Quantile:
    """A quantile over the tokens of all answers of both sides."""

    q: Annotated[float, Range(0.0, 1.0, low_open=True, high_open=True)] = 0.5
    """Share of the tokens below the quantile."""

    def __call__(self, scores: Answers) -> Sequence[float]:
        """One baseline per answer."""
        ordered = torch.cat(list(scores)).double().sort().values
        place = self.q * (len(ordered) - 1)  # torch.quantile accepts at most 16 million values
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return [float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))] * len(scores)


Baseline = Constant | ResponseMean | BatchMean | Quantile


def keep_mask(
    scores: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], positive: Bool[Tensor, "B _"], baseline: float | Float[Tensor, "B _"] = 0.0
) -> Bool[Tensor, "B T"]:
    """True on response tokens that score above the baseline where `positive`, below it elsewhere; both strictly.

    Preference pairs: positive is (B, 1), True for chosen answers. PPO: positive is advantages >= 0, per token.
    """
    return mask & torch.where(positive, scores > baseline, scores < baseline)
