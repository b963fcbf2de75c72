"""What stands on the tokens when a reward model scores them: its head's outputs, differences of them, or shares of the answer's score.

Settings alone: each asks the model that it is given for what it stands for. `finegrain score` and credits choose among the same ones.

Source: attention: https://arxiv.org/abs/2402.00782; differences along the answer: https://arxiv.org/abs/2411.08302; gradient times input:
https://arxiv.org/abs/1605.01713.
Deviations: those of `credit.abc` and `credit.r3hf`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from finegrain.checked import Share, checked
from finegrain.credit.abc import ABC, HeadMean, Heads
from finegrain.credit.r3hf import R3HF, First, FromPrompt
from finegrain.credit.signal_facts import Direction, SignalFacts
from finegrain.errors import UsageError
from finegrain.ops.location import EvenSplit, LocationNormaliser, Spread
from finegrain.ops.segmenters import Dynamic, Segmenter, Tokens


@runtime_checkable
class SignalModel(Protocol):
    """A loaded reward model (`scoring.outputs.LoadedRewardModel`): by example and role, each gives scores of tokens and of the answer."""

    @property
    def name(self) -> str:
        """The checkpoint, for messages."""

    @property
    def segmentation(self) -> Any:
        """What cuts answers, for a head of segments or steps; None for others."""

    @property
    def location(self) -> LocationNormaliser | None:
        """The scale of its segments' scores by place, where training found one."""

    def head_scores(self, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """The head's own."""

    def segment_scores(self, examples: Sequence[Any], roles: Sequence[str], spread: Spread, location: LocationNormaliser | None) -> Any:
        """Of segments or steps."""

    def prefix_differences(self, examples: Sequence[Any], roles: Sequence[str], spread: R3HF) -> Any:
        """Differences along the answer."""

    def attention_shares(self, examples: Sequence[Any], roles: Sequence[str], spread: ABC) -> Any:
        """Shares by attention."""

    def even_shares(self, examples: Sequence[Any], roles: Sequence[str], spread: ABC) -> Any:
        """Equal shares."""

    def saliency(self, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """Gradient times input."""


@dataclass(frozen=True, kw_only=True)
class Raw:
    """As the head gives them: the answer's score is their readout."""

    def __call__(self, model: SignalModel) -> None:
        """No normaliser."""


@dataclass(frozen=True, kw_only=True)
class ByPlace:
    """Less the mean, by the standard deviation, of segments at their place in the answer, as the run's held-out answers had them."""

    def __call__(self, model: SignalModel) -> LocationNormaliser:
        """The checkpoint's normaliser; raises UsageError where it has none."""
        if model.location is None:
            raise UsageError(f"{model.name} has no scale by place; head:segment fits it to held-out answers of many segments: take signal.scale:raw")
        return model.location


Scale = Raw | ByPlace


@dataclass(frozen=True, kw_only=True)
@checked
class Head:
    """The head's own score of each token; for a head of segments or steps their scores, placed on their tokens."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="head", direction=Direction.ZERO, uncertain=True, takes_scorer=True, needs_scorer=True)
    segmenter: ClassVar[Segmenter] = Dynamic()
    last_token: ClassVar[bool] = False
    """Whether it is for a score that is read at the answer's last token."""
    every_prefix: ClassVar[bool] = False
    """Whether it needs a score of every prefix."""

    spread: Spread = field(default_factory=EvenSplit)
    """How the score of a segment or step comes to its tokens: even-split (they add up to it), repeat or end-only."""
    scale: Scale = field(default_factory=Raw)
    """Segment scores as the head gives them (raw), or normalised by where in the answer they stand (by-place)."""

    @property
    def places_segments(self) -> bool:
        """Whether spread or scale are set, which place scores of segments or steps."""
        return self != Head()

    def __call__(self, model: SignalModel, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """By example and role: token scores, and the answer's score as the head's readout has it."""
        if model.segmentation is None:
            return model.head_scores(examples, roles)
        return model.segment_scores(examples, roles, self.spread, self.scale(model))


@dataclass(frozen=True, kw_only=True)
@checked
class MixedWithEnd:
    """Settings of a signal whose parts are mixed with the answer's whole reward at its end."""

    usual_share: ClassVar[float] = 1.0

    share: Share | None = None
    """How much of the reward is spread; the rest comes at the end. None: 0.8 for attention, 1 for prefix-difference and uniform."""

    @property
    def spread_share(self) -> float:
        """The share in effect."""
        return self.usual_share if self.share is None else self.share


@dataclass(frozen=True, kw_only=True)
@checked
class PrefixDifference(MixedWithEnd):
    """How much each token changes the score of the answer so far (r3hf); the answer's score stays the head's."""

    facts: ClassVar[SignalFacts] = SignalFacts(
        name="prefix-difference", direction=Direction.ZERO, additive=True, uncertain=True, takes_scorer=True, needs_scorer=True
    )
    segmenter: ClassVar[Segmenter] = Dynamic()
    last_token: ClassVar[bool] = True
    every_prefix: ClassVar[bool] = True

    first: First = field(default_factory=FromPrompt)
    """What the first token is compared with."""

    def __call__(self, model: SignalModel, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """By example and role: token rewards that sum to the score less the prompt's (`first`: the score itself)."""
        return model.prefix_differences(examples, roles, R3HF(share=self.spread_share, first=self.first))


@dataclass(frozen=True, kw_only=True)
@checked
class Attention(MixedWithEnd):
    """The answer's score in proportion to what the last token attends to in the last layer (abc)."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="attention", direction=Direction.NONE, additive=True, takes_scorer=True, needs_scorer=True)
    segmenter: ClassVar[Segmenter] = Dynamic()
    last_token: ClassVar[bool] = True
    every_prefix: ClassVar[bool] = False
    usual_share: ClassVar[float] = 0.8

    heads: Heads = field(default_factory=HeadMean)
    """How attention heads become one."""

    def __call__(self, model: SignalModel, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """By example and role: token rewards that sum to the answer's score."""
        return model.attention_shares(examples, roles, ABC(share=self.spread_share, heads=self.heads))


@dataclass(frozen=True, kw_only=True)
@checked
class Uniform(MixedWithEnd):
    """The answer's score in equal parts on its tokens: what the other signals have to beat."""

    facts: ClassVar[SignalFacts] = SignalFacts(
        name="uniform", direction=Direction.NONE, additive=True, takes_scorer=True, needs_scorer=True, varies=False
    )
    segmenter: ClassVar[Segmenter] = Tokens()
    last_token: ClassVar[bool] = True
    every_prefix: ClassVar[bool] = False

    def __call__(self, model: SignalModel, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """By example and role: token rewards that sum to the answer's score."""
        return model.even_shares(examples, roles, ABC(share=self.spread_share))


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """How the answer's score changes with a token's embedding, to first order: gradient times input; a backward pass per answer, which is slow."""

    facts: ClassVar[SignalFacts] = SignalFacts(name="saliency", direction=Direction.ZERO, takes_scorer=True, needs_scorer=True)
    segmenter: ClassVar[Segmenter] = Dynamic()
    last_token: ClassVar[bool] = False
    every_prefix: ClassVar[bool] = False

    def __call__(self, model: SignalModel, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """By example and role: of each token, above 0 where more of it would raise the score; and the answer's score."""
        return model.saliency(examples, roles)


RewardSignal = Head | PrefixDifference | Attention | Uniform | Saliency


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """The whole score at the end of the answer: nothing stands on tokens."""


RolloutCredit = Terminal | Head | PrefixDifference | Attention | Uniform
"""How a reward model's score comes to the tokens of sampled answers."""
