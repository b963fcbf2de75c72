"""What stands on the tokens when a reward model scores them: its head's outputs, differences of them, or shares of the answer's score.

How each is computed is in `reward_outputs`, imported when it is: settings must be there at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from finegrain.checked import checked
from finegrain.credit.abc import HeadMean, Heads
from finegrain.credit.r3hf import First, FromPrompt
from finegrain.credit.redistribute import check_share
from finegrain.errors import UsageError
from finegrain.ops.readout import Last
from finegrain.rewards.declarations import read_head
from finegrain.rewards.heads import RewardHead
from finegrain.rewards.location import EvenSplit, LocationNormaliser, Spread


@dataclass(frozen=True, kw_only=True)
class Raw:
    """As the head gives them: the answer's score is their readout."""

    def __call__(self, asked: Any) -> None:
        """No normaliser."""


@dataclass(frozen=True, kw_only=True)
class ByPlace:
    """Less the mean, by the standard deviation, of segments at their place in the answer, as the run's held-out answers had them."""

    def __call__(self, asked: Any) -> LocationNormaliser:
        """The checkpoint's normaliser; raises UsageError where it has none."""
        found: LocationNormaliser | None = asked.location
        if found is None:
            raise UsageError(f"{asked.name} has no scale by place; head:segment fits it to held-out answers of many segments: take signal.scale:raw")
        return found


Scale = Raw | ByPlace


@dataclass(frozen=True, kw_only=True)
@checked
class Head:
    """The head's own judgement of each token; of a head of segments or steps theirs, placed on their tokens."""

    spread: Spread = field(default_factory=EvenSplit)
    """How the score of a segment or step comes to its tokens: even-split (they add up to it), repeat or end-only."""
    scale: Scale = field(default_factory=Raw)
    """Segment scores as the head gives them (raw), or normalised by where in the answer they stand (by-place)."""

    def check(self, head: RewardHead) -> None:
        """Raises UsageError where spread or scale are set for a head that scores tokens itself."""
        if self != Head() and read_head(head).read_positions is None:
            raise UsageError("signal.spread and signal.scale place scores of segments or steps, and this model scores tokens itself: drop them")

    def __call__(self, asked: Any, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """By example and role: token scores, and the answer's score as the head's readout has it."""
        from finegrain.scoring.outputs import judged_by_head, judged_by_parts

        if asked.parts is None:
            return judged_by_head(asked, examples, roles)
        return judged_by_parts(asked, examples, roles, self.spread, self.scale(asked))


@dataclass(frozen=True, kw_only=True)
@checked
class PrefixDifference:
    """How much each token changes the score of the answer so far (r3hf); the answer's score stays the head's."""

    share: float = 1.0
    """How much of the reward is differences; the rest comes at the end."""
    first: First = field(default_factory=FromPrompt)
    """What the first token is compared with."""

    def __post_init__(self) -> None:
        check_share(self.share)

    def check(self, head: RewardHead) -> None:
        """Raises UsageError for a head that does not read the last token."""
        _check_last(head, "prefix-difference")
        if read_head(head).reads_whole_answer:
            raise UsageError("signal:prefix-difference reads every prefix; this model weighs tokens over the whole answer: take signal:head")

    def __call__(self, asked: Any, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """By example and role: token rewards that sum to the score less the prompt's (`first`: the score itself)."""
        from finegrain.credit.r3hf import R3HF
        from finegrain.scoring.outputs import differences

        return differences(asked, examples, roles, R3HF(share=self.share, first=self.first))


@dataclass(frozen=True, kw_only=True)
@checked
class Attention:
    """The answer's score in proportion to what the last token attends to in the last layer (abc); one eager pass per answer, which is slow."""

    share: float = 0.8
    """How much of the reward is spread; the rest comes at the end."""
    heads: Heads = field(default_factory=HeadMean)
    """How attention heads become one."""

    def __post_init__(self) -> None:
        check_share(self.share)

    def check(self, head: RewardHead) -> None:
        """Raises UsageError for a head that does not read the last token."""
        _check_last(head, "attention")

    def __call__(self, asked: Any, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """By example and role: token rewards that sum to the answer's score."""
        from finegrain.credit.abc import ABC
        from finegrain.scoring.outputs import last_attention, shares

        return shares(asked, examples, roles, ABC(share=self.share, heads=self.heads), last_attention)


@dataclass(frozen=True, kw_only=True)
@checked
class Uniform:
    """The answer's score in equal parts on its tokens: what the other signals have to beat."""

    share: float = 1.0
    """How much of the reward is spread; the rest comes at the end."""

    def __post_init__(self) -> None:
        check_share(self.share)

    def check(self, head: RewardHead) -> None:
        """Raises UsageError for a head that does not read the last token."""
        _check_last(head, "uniform")

    def __call__(self, asked: Any, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """By example and role: token rewards that sum to the answer's score."""
        from finegrain.credit.abc import ABC
        from finegrain.scoring.outputs import even_attention, shares

        return shares(asked, examples, roles, ABC(share=self.share), even_attention)


RewardSignal = Head | PrefixDifference | Attention | Uniform


def _check_last(head: RewardHead, signal: str) -> None:
    if read_head(head).read_positions is not None:
        raise UsageError(f"signal:{signal} is for a score read at the last token; this model reads ends of segments or steps: take signal:head")
    if not isinstance(head.readout, Last):
        name = type(head.readout).__name__.lower()
        raise UsageError(f"signal:{signal} is for a score read at the last token; this model's is the {name} of its tokens: take signal:head")
