"""What is done to rewards before anything is computed from them, in one order.

    1 baseline of the prompt   2 missing end   3 truncated answers   4 over-long answers   5 scale   6 clip of the answer's reward
    7 the answer's reward is placed at its last token   8 clip of every token's reward   9 leash in the reward   10 whitening

Source: the missing-end penalty, masked truncated answers and whitened rewards are TRL's; scaled and overwritten truncated answers and the clip
OpenRLHF's; the over-long penalty is DAPO's, https://arxiv.org/abs/2503.14476 (number: memory); the clip of token rewards is that of
https://arxiv.org/abs/2501.02790.
Deviations: the order is ours [choice]: each library has a part of it. A penalty that concerns a whole answer stands on its last token.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.checked import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share, checked
from finegrain.errors import UsageError
from finegrain.online.rollout import Ended, Rollout
from finegrain.online.token_rewards import TokenRewards, place_at_end
from finegrain.online.whiten import moments

Values = Float[Tensor, "B T"]
Rows = Float[Tensor, " B"]


class CombinedRewards(NamedTuple):
    """The rewards of all answers, summed over the reward sources."""

    sequence: Rows
    """Of whole answers; NaN where nobody judged the answer."""
    tokens: Values
    """Per token, without those of `sequence`."""

    @property
    def judged(self) -> Bool[Tensor, " B"]:
        """Answers that have a reward."""
        return ~self.sequence.isnan()


@dataclass(frozen=True, kw_only=True)
class KeepTruncated:
    """An answer that was cut counts like any other."""

    trains: ClassVar[bool] = True

    def __call__(self, rewards: CombinedRewards, truncated: Bool[Tensor, " B"]) -> CombinedRewards:
        """The rewards."""
        return rewards


@dataclass(frozen=True, kw_only=True)
class MaskTruncated:
    """No token of an answer that was cut trains; its reward still counts in the statistics of its group (TRL)."""

    trains: ClassVar[bool] = False

    def __call__(self, rewards: CombinedRewards, truncated: Bool[Tensor, " B"]) -> CombinedRewards:
        """The rewards."""
        return rewards


@dataclass(frozen=True, kw_only=True)
@checked
class ScaleTruncated:
    """The rewards of an answer that was cut are multiplied by a number (OpenRLHF)."""

    trains: ClassVar[bool] = True
    factor: Share = 0.0
    """What they are multiplied by."""

    def __call__(self, rewards: CombinedRewards, truncated: Bool[Tensor, " B"]) -> CombinedRewards:
        """The rewards."""
        scale = torch.where(truncated, self.factor, 1.0).to(rewards.sequence.dtype)
        return CombinedRewards(rewards.sequence * scale, rewards.tokens * scale[:, None])


@dataclass(frozen=True, kw_only=True)
@checked
class OverwriteTruncated:
    """An answer that was cut has this reward, whatever anybody says of it (OpenRLHF)."""

    trains: ClassVar[bool] = True
    reward: float = -1.0
    """In the units of the reward [choice]."""

    def __call__(self, rewards: CombinedRewards, truncated: Bool[Tensor, " B"]) -> CombinedRewards:
        """The rewards."""
        return CombinedRewards(torch.where(truncated, self.reward, rewards.sequence), torch.where(truncated[:, None], 0.0, rewards.tokens))


Truncation = KeepTruncated | MaskTruncated | ScaleTruncated | OverwriteTruncated


@dataclass(frozen=True, kw_only=True)
@checked
class Overlong:
    """DAPO's soft penalty: from `longest - buffer` tokens on the reward falls linearly, by `factor` at `longest`; buffer 0: no penalty."""

    longest: PositiveInt = 512
    """The largest number of tokens of an answer."""
    buffer: NonNegativeInt = 0
    """Tokens over which the penalty grows; 0: there is none."""
    factor: NonNegativeFloat = 1.0
    """The penalty at `longest` tokens and beyond, in the units of the reward."""

    def __post_init__(self) -> None:
        """Stops where the penalty would begin before the answer does."""
        if self.buffer > self.longest:
            raise UsageError(f"the buffer of {self.buffer} tokens is longer than the longest answer, {self.longest}")

    def __call__(self, lengths: Int[Tensor, " B"], dtype: torch.dtype) -> Rows:
        """The penalty of each answer, at least 0."""
        excess = (lengths - (self.longest - self.buffer)).clamp(min=0, max=self.buffer).to(dtype)
        return excess * (self.factor / max(1, self.buffer))


@dataclass(frozen=True, kw_only=True)
@checked
class Transforms:
    """What is done to the rewards, in the order of the module."""

    baseline: str = ""
    """Column of the prompts' numbers that is subtracted from the answer's reward; empty: none. A baseline of the group removes it again."""
    missing_end: NonNegativeFloat = 0.0
    """What an answer loses that was cut before its end token or stop string, in units of the reward."""
    truncated: Truncation = field(default_factory=KeepTruncated)
    """What becomes of such answers otherwise."""
    overlong: Overlong = field(default_factory=Overlong)
    """The penalty of answers near the largest length."""
    scale: float = 1.0
    """What all rewards are multiplied by."""
    clip: tuple[float, float] | None = None
    """Least and largest reward of a whole answer (OpenRLHF: -10 to 10); token rewards are not counted in; None: no clip."""
    token_clip: PositiveFloat | None = None
    """Largest absolute reward of a token, that of the answer at its last one included, before the leash; None: no clip."""
    whiten: bool = False
    """Whether token rewards, leash included, are divided by their standard deviation over all judged tokens of the buffer; their mean is kept."""

    def __post_init__(self) -> None:
        """Stops where no reward is within the clip."""
        if self.clip is not None and self.clip[0] > self.clip[1]:
            raise UsageError(f"clip is from {self.clip[0]:g} to {self.clip[1]:g}; the smaller number comes first")

    def of_answers(self, rewards: CombinedRewards, rollout: Rollout) -> CombinedRewards:
        """Steps 1 to 6."""
        sequence, tokens = rewards
        if self.baseline:
            sequence = sequence - _column(rollout, self.baseline).to(sequence.dtype)
        truncated = rollout.ended == Ended.LENGTH
        sequence = torch.where(truncated, sequence - self.missing_end, sequence)
        sequence, tokens = self.truncated(CombinedRewards(sequence, tokens), truncated)
        sequence = self.scale * (sequence - self.overlong(rollout.lengths, sequence.dtype))
        if self.clip is not None:
            sequence = sequence.clamp(*self.clip)
        return CombinedRewards(sequence, self.scale * tokens)

    def of_tokens(self, rewards: CombinedRewards, rollout: Rollout, penalty: Values, greedy: Rows | None = None) -> TokenRewards:
        """Steps 7 to 10; the penalty is that of the leash."""
        live = rollout.mask & rewards.judged[:, None]
        score = torch.where(live, rewards.tokens + place_at_end(rewards.sequence.nan_to_num(0.0), rollout.mask), 0.0)
        if self.token_clip is not None:
            score = score.clamp(-self.token_clip, self.token_clip)
        penalty = torch.where(live, penalty, 0.0)
        if self.whiten:
            total = score + penalty
            score, penalty = torch.where(live, moments(total, live).whiten(total, keep_mean=True), 0.0), torch.zeros_like(penalty)
        return TokenRewards(rollout=rollout, score=score, penalty=penalty, judged=rewards.judged, greedy=greedy)


def _column(rollout: Rollout, name: str) -> Rows:
    if name not in rollout.columns:
        raise UsageError(
            f"the prompts have no column {name!r}, which is the baseline of their rewards; they have: {', '.join(rollout.columns) or 'none'}"
        )
    return rollout.columns[name]
