"""What asr and confidence share: settings of a weight per segment, and its way from a signal to token columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.credit.answers import CreditedAnswer, check_kept_bounds, check_kept_share, make_columns
from finegrain.credit.cutting import CreditSegmenter, check_segmenter, cut_answers
from finegrain.credit.scores import Baseline, Constant, Mean, SegmentScore, check_direction, score_excess
from finegrain.credit.signals import Auto, SignalChoice, check_complete, check_scorer, read_answers, resolve_signal
from finegrain.types import CreditContext, TokenColumns

Weigh = Callable[[Sequence[CreditedAnswer], Sequence[Tensor], Sequence[Tensor], str], Sequence[Float[Tensor, " _"]]]
"""(answers, score of each token's segment less the baseline, segment ids, name of the signal) -> weight of every token."""


@dataclass(frozen=True, kw_only=True)
@checked
class SegmentWeights:
    """Settings of a weight per segment."""

    scorer: str | None = None
    """A causal LM fine-tuned by DPO, or a reward model; without it, and without a column or spans on all answers, the run makes its own."""
    signal: SignalChoice = field(default_factory=Auto)
    """The source of token scores."""
    segmenter: CreditSegmenter | None = None
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
        check_kept_bounds(self.min_kept, self.max_kept)

    def check(self) -> None:
        """Raises UsageError for settings that mean nothing together."""
        check_complete(self.signal, self.scorer)
        check_direction(self.signal.facts, self.baseline, f"credit:{type(self).__name__.lower()}")
        check_segmenter(self.segmenter, self.signal.facts)

    def _prepare(self, context: CreditContext, weigh: Weigh) -> Mapping[str, TokenColumns]:
        """Weights, the signal as reward, segment ids."""
        self.check()
        signal = resolve_signal(self.signal, self.scorer, context)
        answers = read_answers(signal, context)
        masks, rewards = [answer.mask for answer in answers], [answer.scored.mean for answer in answers]
        ids = cut_answers(self.segmenter or signal.segmenter, context, answers)
        weight = weigh(answers, score_excess(self.score, self.baseline, rewards, ids, masks), ids, signal.facts.name)
        check_kept_share(answers, weight, min_kept=self.min_kept, max_kept=self.max_kept)
        return make_columns(context, answers, weight=weight, reward=rewards, segment=ids)
