"""What asr and confidence share: settings of a weight per segment, and its way from a signal to token columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.credit.answers import CreditedAnswer, check_kept_share, find_signals, make_columns, map_blocks, score_segments
from finegrain.credit.scores import Baseline, Constant, Mean, SegmentScore
from finegrain.credit.signals import Auto, SignalChoice, check_scorer, resolve_signal
from finegrain.ops.segmenters import Segmenter, check
from finegrain.types import CreditContext, TokenColumns

Weigh = Callable[[Sequence[CreditedAnswer], Sequence[Tensor], Sequence[Tensor], str], Sequence[Float[Tensor, " _"]]]
"""(answers, score of each token's segment less the baseline, segment ids, name of the signal) -> weight of every token."""


@dataclass(frozen=True, kw_only=True)
@checked
class SegmentWeights:
    """Settings of a weight per segment."""

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
    """Smallest mean weight of a side's tokens; below it the run stops before training."""
    max_kept: float = 0.95
    """Largest mean weight of a side's tokens."""

    def __post_init__(self) -> None:
        check_scorer(self.signal, self.scorer)
        check(0 <= self.min_kept < self.max_kept <= 1, f"0 <= min_kept < max_kept <= 1 must hold, got {self.min_kept} and {self.max_kept}")

    def _prepare(self, context: CreditContext, weigh: Weigh) -> Mapping[str, TokenColumns]:
        """Weights, the signal as reward, segment ids."""
        signal = resolve_signal(self.signal, self.scorer, context)
        answers = find_signals(context, signal(context))
        masks, rewards = [answer.mask for answer in answers], [answer.scored.mean for answer in answers]
        ids = map_blocks(self.segmenter or signal.segmenter, rewards, masks)
        scores = score_segments(self.score, rewards, ids, masks)
        baselines = self.baseline([score[mask] for score, mask in zip(scores, masks, strict=True)])
        excess = [score - base for score, base in zip(scores, baselines, strict=True)]
        weight = weigh(answers, excess, ids, type(signal).__name__.lower())
        check_kept_share(answers, weight, min_kept=self.min_kept, max_kept=self.max_kept)
        return make_columns(context, answers, weight=weight, reward=rewards, segment=ids)
