"""Credit of parts: a signal, what cuts it into segments, and what each segment's tokens are given.

Source: ours (docs/methods/compose.md); asr, abc, r3hf and segment-reward are compositions of these parts.
Deviations: not from a paper, but for the parts, which say their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, get_args

from finegrain.checked import checked
from finegrain.credit.allocations import DynamicTopK, Mask, RandomQuantile, Segmented, SoftWeight, TopK
from finegrain.credit.answers import known_stds, make_columns
from finegrain.credit.context import CreditContext
from finegrain.credit.cutting import CreditSegmenter, check_segmenter, cut_answers
from finegrain.credit.reward_allocations import ByLocation, Interpolate, Redistribute
from finegrain.credit.reward_signals import MixedWithEnd
from finegrain.credit.signals import Auto, SignalChoice, check_complete, check_scorer, read_answers, resolve_signal
from finegrain.errors import UsageError
from finegrain.types import TokenColumns, WeightMeaning

Allocation = Mask | SoftWeight | TopK | DynamicTopK | RandomQuantile | Redistribute | Interpolate | ByLocation


@dataclass(frozen=True, kw_only=True)
@checked
class Compose:
    """A signal, a segmenter and an allocation of your choice."""

    weight_choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"allocation": get_args(Allocation)}

    scorer: str | None = None
    """A causal LM fine-tuned by DPO, or a reward model; several, separated by commas, are members of one."""
    signal: SignalChoice = field(default_factory=Auto)
    """The source of token scores."""
    segmenter: CreditSegmenter | None = None
    """Where segments begin; None: pivots of change (dynamic), or every token for signals that are given token by token."""
    allocation: Allocation = field(default_factory=Mask)
    """What a token is given for its segment's score: a weight, or a reward alone."""

    def __post_init__(self) -> None:
        check_scorer(self.signal, self.scorer)

    @property
    def weight_means(self) -> WeightMeaning:
        """As the allocation says."""
        return self.allocation.weight_means

    def check(self) -> None:
        """Raises UsageError for parts that mean nothing together."""
        check_complete(self.signal, self.scorer)
        check_segmenter(self.segmenter, self.signal.facts)
        self.allocation.check(self.signal.facts)
        self._resolve_share()

    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        """Weight and reward, or reward alone, and segment ids."""
        self.check()
        chosen, allocation = self._resolve_share()
        signal = resolve_signal(chosen, self.scorer, context)
        segmenter = self.segmenter or signal.segmenter
        check_segmenter(segmenter, signal.facts)
        allocation.check(signal.facts)
        answers = read_answers(signal, context)
        ids = cut_answers(segmenter, context, answers)
        tokens = {role: context.token_ids(role) for role in context.signs}
        given = Segmented(answers, ids, [tokens[answer.role][answer.row] for answer in answers], signal.facts)
        weight, reward = allocation(given)
        stds = None if weight is None else known_stds(answers)  # of the signal, which is the reward unless it was allocated anew
        return make_columns(context, answers, weight=weight, reward=reward, segment=ids, reward_std=stds)

    def _resolve_share(self) -> tuple[SignalChoice, Allocation]:
        """The signal whole, and the allocation with the one share that mixes with the answer's end: its own or else the signal's."""
        signal, allocation = self.signal, self.allocation
        if not isinstance(signal, MixedWithEnd):
            return signal, allocation
        if not isinstance(allocation, Interpolate):
            if signal.share is not None:
                raise UsageError(f"credit.signal.share {signal.share} mixes with the answer's end, for credit.allocation:interpolate alone; drop it")
            return replace(signal, share=1.0), allocation
        if signal.share is not None and allocation.share not in (None, signal.share):
            raise UsageError(f"credit.signal.share {signal.share} and credit.allocation.share {allocation.share} both mix with the end: set one")
        share = signal.spread_share if allocation.share is None else allocation.share
        return replace(signal, share=1.0), replace(allocation, share=share)
