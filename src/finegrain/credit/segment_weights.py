"""What asr and confidence share: settings of a weight per segment, and its way from a signal to token columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.credit.agreement import LabelAgreement
from finegrain.credit.answers import CreditedAnswer, known_stds, make_columns
from finegrain.credit.context import CreditContext
from finegrain.credit.cutting import CreditSegmenter, check_segmenter, cut_answers
from finegrain.credit.scores import check_direction
from finegrain.credit.signals import Auto, SignalChoice, check_complete, check_scorer, read_answers, resolve_signal
from finegrain.types import TokenColumns

Weigh = Callable[[Sequence[CreditedAnswer], Sequence[Tensor], Sequence[Tensor], str], Sequence[Float[Tensor, " _"]]]
"""(answers, score of each token's segment less the baseline, segment ids, name of the signal) -> weight of every token."""


@dataclass(frozen=True, kw_only=True)
@checked
class SegmentWeights(LabelAgreement):
    """Settings of a weight per segment."""

    scorer: str | None = None
    """A causal LM fine-tuned by DPO, or a reward model; without it, and without a column or spans on all answers, the run makes its own."""
    signal: SignalChoice = field(default_factory=Auto)
    """The source of token scores."""
    segmenter: CreditSegmenter | None = None
    """Where segments begin; None: pivots of change (dynamic), or every token for annotators' spans and functions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scorer(self.signal, self.scorer)

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
        weight = weigh(answers, self._excess(rewards, ids, masks), ids, signal.facts.name)
        self._check_kept(answers, weight, "credit")
        return make_columns(context, answers, weight=weight, reward=rewards, segment=ids, reward_std=known_stds(answers))
