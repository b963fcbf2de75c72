"""Allocations that write a weight for every token: what a signal and its segments become.

Source: mask: released code of the authors of https://arxiv.org/abs/2411.00809; dynamic top-k: https://arxiv.org/abs/2310.05619.
Deviations: soft weights, and top-k and random weights of segments, are ours [OURS].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, NamedTuple
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.checked import NonNegativeFloat, Range, Seed, checked
from finegrain.credit.agreement import LabelAgreement
from finegrain.credit.answers import CreditedAnswer, map_blocks, score_segments
from finegrain.credit.confidence import confidence_weight
from finegrain.credit.scores import check_direction
from finegrain.credit.signal_facts import Direction, SignalFacts
from finegrain.credit.uncertainty import segment_stds
from finegrain.errors import UsageError
from finegrain.ops.peaks import dynamic_topk, fixed_topk
from finegrain.ops.segment_scores import Mean, SegmentScore, keep_mask
from finegrain.ops.segments import segment_ends, segment_last
from finegrain.types import WeightMeaning

Fraction = Annotated[float, Range(0.0, 1.0, low_open=True)]


@dataclass(frozen=True)
class Segmented:
    """Answers with a signal, cut into segments."""

    answers: Sequence[CreditedAnswer]
    ids: Sequence[Tensor]
    """(T,) per answer, -1 outside the mask."""
    tokens: Sequence[np.ndarray]
    """(T,) token ids per answer."""
    facts: SignalFacts

    @property
    def masks(self) -> list[Tensor]:
        """Of the answers."""
        return [answer.mask for answer in self.answers]

    @property
    def values(self) -> list[Tensor]:
        """The signal."""
        return [answer.scored.mean for answer in self.answers]


class Allocated(NamedTuple):
    """What an allocation writes, (T,) per answer, 0 outside the mask."""

    weight: Sequence[Float[Tensor, " _"]] | None
    reward: Sequence[Float[Tensor, " _"]]


@dataclass(frozen=True, kw_only=True)
@checked
class Mask(LabelAgreement):
    """Keeps segments whose score agrees with the label of their answer: asr's."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.KEEP_MASK

    def check(self, facts: SignalFacts) -> None:
        """Raises UsageError for a signal without a sign."""
        check_direction(facts, self.baseline, "credit.allocation:mask")

    def __call__(self, given: Segmented) -> Allocated:
        """0 or 1; the signal as reward."""
        excess = self._excess(given.values, given.ids, given.masks)
        weight = [
            keep_mask(score[None], answer.mask[None], torch.tensor([[answer.positive]]))[0]
            for score, answer in zip(excess, given.answers, strict=True)
        ]
        self._check_kept(given.answers, weight, "credit.allocation")
        return Allocated(weight, given.values)


@dataclass(frozen=True, kw_only=True)
@checked
class SoftWeight(LabelAgreement):
    """The probability, under the signal's uncertainty, that a segment deserves the label of its answer: confidence's [OURS]."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.LABEL_PROBABILITY

    n0: NonNegativeFloat = 4.0
    """Weight of the pooled variance in observations; a segment's own variance from two members counts as one [choice]."""

    def check(self, facts: SignalFacts) -> None:
        """Raises UsageError for a signal without a sign or without an uncertainty."""
        check_direction(facts, self.baseline, "credit.allocation:soft-weight")
        if not facts.uncertain:
            raise UsageError(
                f"credit.allocation:soft-weight needs a standard deviation or several scorers, and the signal {facts.name} has neither; "
                "take credit.allocation:mask, or several checkpoints as --credit.scorer A,B"
            )

    def __call__(self, given: Segmented) -> Allocated:
        """In [0, 1]; the signal as reward."""
        excess = self._excess(given.values, given.ids, given.masks)
        stds = segment_stds(self.score, given.answers, given.ids, n0=self.n0, who="credit.allocation:soft-weight", signal=given.facts.name)
        weight = [
            confidence_weight(score[None], std[None], answer.mask[None], torch.tensor([[answer.positive]]))[0]
            for score, std, answer in zip(excess, stds, given.answers, strict=True)
        ]
        self._check_kept(given.answers, weight, "credit.allocation")
        return Allocated(weight, given.values)


def _select_segments(choose: Callable[[Tensor, Tensor], Tensor], scores: Sequence[Tensor], given: Segmented) -> list[Tensor]:
    """1 on the tokens of segments that `choose` takes of (scores, where segments end), each (B, T), and 0 elsewhere."""

    def chosen(values: Float[Tensor, "B T"], ids: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        inside = torch.where(mask, ids, -1)
        return segment_last(choose(values, segment_ends(inside)).to(values.dtype), inside)

    return map_blocks(chosen, scores, given.ids, given.masks)


def _deserving(score: SegmentScore, given: Segmented) -> list[Tensor]:
    """Segment scores that are large where a segment deserves its answer's label, or where values without direction are large in size."""
    if given.facts.direction is Direction.NONE:
        return score_segments(score, [values.abs() for values in given.values], given.ids, given.masks)
    scores = score_segments(score, given.values, given.ids, given.masks)
    return [own if answer.positive else -own for own, answer in zip(scores, given.answers, strict=True)]


def _check_varies(facts: SignalFacts, who: str) -> None:
    if not facts.varies:
        raise UsageError(f"{who} takes the largest scores, but credit.signal:{facts.name} gives all its tokens the same; take random-quantile")


@dataclass(frozen=True, kw_only=True)
@checked
class TopK:
    """Weight 1 on a fixed fraction of an answer's segments: those that most deserve its label, or stand out where the signal has no sign [OURS]."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.SELECTION

    score: SegmentScore = field(default_factory=Mean)
    """Score of a segment."""
    fraction: Fraction = 0.5
    """Of the segments, rounded up; of equal ones the earlier is taken."""

    def check(self, facts: SignalFacts) -> None:
        """Raises UsageError for a signal that is the same on all tokens."""
        _check_varies(facts, "credit.allocation:top-k")

    def __call__(self, given: Segmented) -> Allocated:
        """0 or 1; the signal as reward."""
        choose = lambda scores, ends: fixed_topk(scores, ends, self.fraction)
        return Allocated(_select_segments(choose, _deserving(self.score, given), given), given.values)


@dataclass(frozen=True, kw_only=True)
@checked
class DynamicTopK:
    """Weight 1 on segments whose score is a local peak of its answer; how many there are follows from the answer [OURS]."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.SELECTION

    score: SegmentScore = field(default_factory=Mean)
    """Score of a segment."""
    q: float = 0.0
    """Minimum height of a peak: mean - q * std of the answer's segments."""

    def check(self, facts: SignalFacts) -> None:
        """Raises UsageError for a signal that is the same on all tokens."""
        _check_varies(facts, "credit.allocation:dynamic-top-k")

    def __call__(self, given: Segmented) -> Allocated:
        """0 or 1; the signal as reward."""
        choose = lambda scores, ends: dynamic_topk(scores, ends, self.q)
        return Allocated(_select_segments(choose, _deserving(self.score, given), given), given.values)


@dataclass(frozen=True, kw_only=True)
@checked
class RandomQuantile:
    """Weight 1 on a random fraction of an answer's segments, whatever the signal says: the control that every other has to beat [OURS]."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.SELECTION

    fraction: Fraction = 0.5
    """Of the segments, rounded up: those whose draw is above the answer's quantile."""
    seed: Seed = 0
    """Of the draws; every answer adds its tokens, so its draw depends on no other row."""

    def check(self, facts: SignalFacts) -> None:
        """Any signal will do: it is not looked at."""

    def __call__(self, given: Segmented) -> Allocated:
        """0 or 1; the signal as reward."""
        draws = [self._draw(tokens, mask) for tokens, mask in zip(given.tokens, given.masks, strict=True)]
        choose = lambda scores, ends: fixed_topk(scores, ends, self.fraction)
        return Allocated(_select_segments(choose, draws, given), given.values)

    def _draw(self, tokens: np.ndarray, mask: Tensor) -> Tensor:
        own = mask.numpy()
        generator = np.random.default_rng([self.seed, crc32(tokens[own].astype(np.int64).tobytes())])
        drawn = np.zeros(len(own))
        drawn[own] = generator.random(int(own.sum()))
        return torch.from_numpy(drawn)
