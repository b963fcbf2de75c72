"""Segments of a response by a number at each of its tokens: boundaries between levels of the signal, or between units of text.

Source: pivots where the token reward changes: adaptive segment-level reward, https://arxiv.org/abs/2411.00809; their selection without
parameters: dynamic top-k, https://arxiv.org/abs/2310.05619.
Deviations: the paper's exact pivot formula could not be obtained; change curve, smoothing and every alternative rule are our
specification [OURS]. `ChangePoint` is our own addition [OURS], docs/methods/change-point.md.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.checked import NonNegativeFloat, PositiveInt, Range, checked
from finegrain.errors import UsageError
from finegrain.ops import segments
from finegrain.ops.peaks import dynamic_topk, fixed_topk
from finegrain.ops.precision import to_widest

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]
Ids = Int[Tensor, "B T"]


class Curve(Enum):
    """The numbers at the tokens that a segmenter reads."""

    SIGNAL = "the token scores"
    NOTHING = "nothing but the mask"
    ENTROPY = "the start model's entropy before each token"
    SURPRISAL = "minus the start model's log-probability of each token"
    TOKENS = "the token ids"
    SENTENCES = "the number of each token's sentence"
    CONSTITUENTS = "the number of each token's constituent, from the column <role>_parse"


def check(holds: bool, message: str) -> None:
    """Raises UsageError with the message where a setting is out of range."""
    if not holds:
        raise UsageError(message)


@dataclass(frozen=True, kw_only=True)
@checked
class Dynamic:
    """A segment starts at every local maximum of the change curve that is at least average."""

    reads: ClassVar[Curve] = Curve.SIGNAL

    window: PositiveInt = 1
    """Tokens averaged on each side of a possible boundary; larger is more robust but blurs short segments."""
    q: float = 0.0
    """Minimum height of a maximum: mean - q * std of the curve; negative values require larger changes."""

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids (B, T)."""
        return segments.segments_from(dynamic_topk(segments.change_curve(values, mask, self.window), mask, self.q), mask)


@dataclass(frozen=True, kw_only=True)
@checked
class Threshold:
    """A segment starts wherever the change curve exceeds a fixed value."""

    reads: ClassVar[Curve] = Curve.SIGNAL

    tau: NonNegativeFloat = 0.0
    """In the units of the signal; at 0 every change starts a segment."""
    window: PositiveInt = 1
    """Tokens averaged on each side of a possible boundary."""

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids (B, T)."""
        return segments.segments_from(segments.change_curve(values, mask, self.window) > self.tau, mask)


@dataclass(frozen=True, kw_only=True)
@checked
class TopK:
    """A segment starts at the largest changes, a fixed fraction of the tokens; of equal changes the earlier one is used."""

    reads: ClassVar[Curve] = Curve.SIGNAL

    fraction: Annotated[float, Range(0.0, 1.0, low_open=True)] = 0.1
    """Pivots per response token, rounded up."""
    window: PositiveInt = 1
    """Tokens averaged on each side of a possible boundary."""

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids (B, T)."""
        curve = segments.change_curve(values, mask, self.window)
        return segments.segments_from(fixed_topk(curve, mask, self.fraction) & (curve > 0), mask)


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A segment starts where the signal changes sign; 0 counts as a separate sign."""

    reads: ClassVar[Curve] = Curve.SIGNAL

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids (B, T)."""
        signs = torch.where(mask, values, 0.0).sign()
        return segments.segments_from(segments.change_curve(signs, mask) > 0, mask)


@dataclass(frozen=True, kw_only=True)
@checked
class ChangePoint:
    """The most probable partition into constant levels under noise, with a penalty per segment [OURS]; exact.

    Noise is estimated per response from first differences, the variance of the levels from the rest. The minimum length of a segment
    depends on it: with much noise a segment must be long, with little noise a single token can be one.
    """

    reads: ClassVar[Curve] = Curve.SIGNAL

    k: NonNegativeFloat = 0.7
    """Penalty per segment, in -2 log likelihood; set on simulated signals other than those reported [choice]."""
    centre: float = 0.0
    """The centre of the levels, in the units of the signal: the baseline that decides what is kept [choice]."""

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids (B, T)."""
        values = torch.where(mask, to_widest(values) - self.centre, 0.0)
        power = values.square().sum(1) / mask.sum(1).clamp(min=1)
        noise = torch.maximum(segments.noise_scale(values, mask).square(), 1e-8 * power)  # rounding is not a change of level
        noise = torch.where(noise > 0, noise, 1.0)
        level = torch.maximum(power - noise, 0.05 * noise)
        return segments.segments_from(segments.change_points(values, mask, noise, level, self.k), mask)


@dataclass(frozen=True, kw_only=True)
@checked
class Windows:
    """Segments of a fixed number of tokens, whatever the signal."""

    reads: ClassVar[Curve] = Curve.NOTHING

    size: PositiveInt = 5
    """Tokens."""

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids (B, T)."""
        return segments.segment_windows(mask, self.size)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Every token is its own segment: the authors' released rule."""

    reads: ClassVar[Curve] = Curve.NOTHING

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids (B, T)."""
        return segments.segment_tokens(mask)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """The whole response is one segment (one per turn where a response has several)."""

    reads: ClassVar[Curve] = Curve.NOTHING

    def __call__(self, values: Values, mask: Mask) -> Ids:
        """Segment ids (B, T)."""
        return segments.segments_from(torch.zeros_like(mask), mask)


Blind = Windows | Tokens | Whole
"""Segmenters that do not depend on the signal."""

Segmenter = Dynamic | Threshold | TopK | Sign | ChangePoint | Blind
