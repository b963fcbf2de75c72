"""Adaptive segment-level reward: only segments whose own score agrees with the label of the whole answer train.

Source: https://arxiv.org/abs/2411.00809 (v3); keep rule from the same team's released code (Yingshui-Tan/Equilibrate-RLHF).
Deviations: the exact pivot formula could not be obtained: change curve, smoothing, segment score and every baseline except 0 are our
specification [OURS]. With `Tokens` as segmenter the mask is exactly that of the released code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from finegrain.checked import checked
from finegrain.credit.answers import CreditedAnswer
from finegrain.credit.context import CreditContext
from finegrain.credit.segment_weights import SegmentWeights
from finegrain.ops.segment_scores import keep_mask
from finegrain.types import TokenColumns, WeightMeaning


@dataclass(frozen=True, kw_only=True)
@checked
class ASR(SegmentWeights):
    """Which segments of an answer train."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.KEEP_MASK

    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        """Weight 0 or 1, the signal as reward, segment ids."""
        return self._prepare(context, self._weigh)

    def _weigh(self, answers: Sequence[CreditedAnswer], excess: Sequence[Tensor], ids: Sequence[Tensor], signal: str) -> list[Tensor]:
        return [
            keep_mask(score[None], answer.mask[None], torch.tensor([[answer.positive]]))[0] for score, answer in zip(excess, answers, strict=True)
        ]
