"""Confidence: weights that are the probability, under the scorer's uncertainty, that a token deserves its answer's label [OURS].

Source: ours (docs/methods/confidence.md); the keep-mask of https://arxiv.org/abs/2411.00809 is its limit for a certain scorer.
Deviations: not from a paper. Prior weight n0, independence of token errors and the shrinkage are [choice].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, checked
from finegrain.credit.answers import CreditedAnswer
from finegrain.credit.context import CreditContext
from finegrain.credit.segment_weights import SegmentWeights
from finegrain.credit.signals import Auto, SignalChoice
from finegrain.credit.uncertainty import segment_stds
from finegrain.types import TokenColumns, WeightMeaning


def confidence_weight(
    mean: Float[Tensor, "B T"], std: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], positive: Bool[Tensor, "B _"]
) -> Float[Tensor, "B T"]:
    """Phi(mean / std) where `positive`, Phi(-mean / std) elsewhere; 1/2 for mean 0, whatever std; 0 outside the mask."""
    signed = torch.where(mask, torch.where(positive, mean, -mean), 0.0)
    spread = torch.where(mask, std, 1.0)
    certain = spread == 0
    z = torch.where(certain, 0.0, signed) / torch.where(certain, 1.0, spread)
    return torch.where(mask, torch.where(certain, (signed.sign() + 1) / 2, torch.special.ndtr(z)), 0.0)


@dataclass(frozen=True, kw_only=True)
@checked
class Confidence(SegmentWeights):
    """Weights by the probability that a segment deserves its answer's label."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.LABEL_PROBABILITY

    scorer: str | None = None
    """A scorer with its own uncertainty, or several, separated by commas; without it the run's own table and its posterior deviation."""
    signal: SignalChoice = field(default_factory=Auto)
    """The source of token scores; must have a standard deviation or several members."""
    n0: NonNegativeFloat = 4.0
    """Weight of the pooled variance in observations; a segment's own variance from two members counts as one [choice]."""

    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        """Weight in [0, 1], the signal as reward, segment ids."""
        return self._prepare(context, self._weigh)

    def _weigh(self, answers: Sequence[CreditedAnswer], excess: Sequence[Tensor], ids: Sequence[Tensor], signal: str) -> list[Tensor]:
        stds = segment_stds(self.score, answers, ids, n0=self.n0, who="credit:confidence", signal=signal)
        return [
            confidence_weight(score[None], std[None], answer.mask[None], torch.tensor([[answer.positive]]))[0]
            for score, std, answer in zip(excess, stds, answers, strict=True)
        ]
