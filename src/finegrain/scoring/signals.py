"""Which signal a reward model can give: checked against its head before its network is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finegrain.credit.reward_signals import ByPlace, Head, PrefixDifference, RewardSignal, Saliency
from finegrain.errors import UsageError
from finegrain.ops.readout import Last
from finegrain.rewards.declarations import read_head
from finegrain.rewards.heads import RewardHead


@dataclass(frozen=True, kw_only=True)
class Densest:
    """What a credit reads: scores of segments or steps, differences along the answer for a head of its last token, else the head's own."""

    def choice(self, model: Any) -> tuple[RewardSignal, str]:
        """The signal of this model (`scoring.outputs.LoadedRewardModel`), and its name for a person."""
        if model.segmentation is not None:
            return (Head(), "segment or step") if model.location is None else (Head(scale=ByPlace()), "segment, on one scale by place")
        return (PrefixDifference(), "differences along the answer") if isinstance(model.head.readout, Last) else (Head(), "token")

    def __call__(self, model: Any, examples: Sequence[Any], roles: Sequence[str]) -> Any:
        """By example and role: token scores, and the answer's score."""
        return self.choice(model)[0](model, examples, roles)


def check_signal(signal: RewardSignal | Densest, head: RewardHead, option: str = "signal", *, adds_up: bool = False) -> None:
    """Raises UsageError for a signal that a model with this head does not give; every head has a densest one.

    option: what the command calls it. adds_up: whether the token scores will be added up, as rewards of an answer are.
    """
    if isinstance(signal, Densest):
        return
    declared, name = read_head(head), signal.facts.name
    if isinstance(signal, Head) and signal.places_segments and declared.read_positions is None:
        raise UsageError(f"{option}.spread and {option}.scale place scores of segments or steps, and this model scores tokens itself: drop them")
    if isinstance(signal, Saliency) and declared.read_positions is not None:
        told = "is the gradient of one score of the answer; this model reads ends of segments or steps"
        raise UsageError(f"{option}:saliency {told}: take {option}:head")
    if signal.last_token and declared.read_positions is not None:
        raise UsageError(f"{option}:{name} is for a score read at the last token; this model reads ends of segments or steps: take {option}:head")
    if signal.last_token and not isinstance(head.readout, Last):
        readout = type(head.readout).__name__.lower()
        raise UsageError(
            f"{option}:{name} is for a score read at the last token; this model's is the {readout} of its tokens: take {option}:head"
            + ("" if adds_up else "; for a credit that divides the answer's score, credit.signal:implicit reads this model's token scores")
        )
    if signal.every_prefix and declared.reads_whole_answer:
        raise UsageError(f"{option}:{name} reads every prefix; this model weighs tokens over the whole answer: take {option}:head")
    if adds_up and isinstance(signal, Head) and declared.read_positions is None and isinstance(head.readout, Last):
        raise UsageError(
            f"{option}:{name} adds up the scores of an answer's tokens, and each token of this model scores the whole answer so far: "
            f"take {option}:prefix-difference, which adds up to the answer's score, or {option}:terminal"
        )
