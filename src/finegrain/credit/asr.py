"""Adaptive segment-level reward: only segments whose own score agrees with the label of the whole answer train.

Source: https://arxiv.org/abs/2411.00809 (v3); keep rule from the same team's released code (Yingshui-Tan/Equilibrate-RLHF).
Deviations: the exact pivot formula could not be obtained: change curve, smoothing, segment score and every baseline except 0 are our
specification [OURS]. With `Tokens` as segmenter the mask is exactly that of the released code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.credit.answers import check_kept_share, find_signals, make_columns, map_blocks, score_segments
from finegrain.credit.scores import Baseline, Constant, Mean, SegmentScore
from finegrain.credit.signals import Auto, SignalChoice, check_scorer, resolve_signal
from finegrain.ops.segmenters import Segmenter, check
from finegrain.types import CreditContext, TokenColumns, WeightMeaning


def keep_mask(
    scores: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], positive: Bool[Tensor, "B _"], baseline: float | Float[Tensor, "B _"] = 0.0
) -> Bool[Tensor, "B T"]:
    """True on response tokens that score above the baseline where `positive`, below it elsewhere; both strictly.

    Preference pairs: positive is (B, 1), True for chosen answers. PPO: positive is advantages >= 0, per token.
    """
    return mask & torch.where(positive, scores > baseline, scores < baseline)


@dataclass(frozen=True, kw_only=True)
@checked
class ASR:
    """Which segments of an answer train."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.KEEP_MASK

    scorer: str | None = None
    """A causal LM fine-tuned by DPO, or a reward model; without it, and without spans or a column, the run trains its own."""
    signal: SignalChoice = field(default_factory=Auto)
    """The source of token scores."""
    segmenter: Segmenter | None = None
    """Where segments begin; None: pivots of change (dynamic), or every token for annotators' spans and functions."""
    score: SegmentScore = field(default_factory=Mean)
    """Score of a segment."""
    baseline: Baseline = field(default_factory=Constant)
    """The value that a segment's score must exceed in a chosen answer, and stay below in a rejected one."""
    min_kept: float = 0.05
    """Smallest share of a side's tokens that may be kept; below it the run stops before training."""
    max_kept: float = 0.95
    """Largest share of a side's tokens that may be kept."""

    def __post_init__(self) -> None:
        check_scorer(self.signal, self.scorer)
        check(0 <= self.min_kept < self.max_kept <= 1, f"0 <= min_kept < max_kept <= 1 must hold, got {self.min_kept} and {self.max_kept}")

    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        """Weight 0 or 1, the signal as reward, segment ids."""
        signal = resolve_signal(self.signal, self.scorer, context)
        answers = find_signals(context, signal(context))
        masks, rewards = [answer.mask for answer in answers], [answer.scored.mean for answer in answers]
        ids = map_blocks(self.segmenter or signal.segmenter, rewards, masks)
        scores = score_segments(self.score, rewards, ids, masks)
        baselines = self.baseline([score[mask] for score, mask in zip(scores, masks, strict=True)])
        weight = [
            keep_mask(score[None], answer.mask[None], torch.tensor([[answer.positive]]), base)[0]
            for score, answer, base in zip(scores, answers, baselines, strict=True)
        ]
        check_kept_share(answers, weight, min_kept=self.min_kept, max_kept=self.max_kept)
        return make_columns(context, answers, weight=weight, reward=rewards, segment=ids)
