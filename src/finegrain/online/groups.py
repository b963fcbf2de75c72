"""Advantages by comparison of the answers to one prompt, and with one greedy answer.

Source: leave-one-out: RLOO, https://arxiv.org/abs/2402.14740; group-norm: GRPO, https://arxiv.org/abs/2402.03300; group-mean: Dr. GRPO,
https://arxiv.org/abs/2503.20783, and the baseline of REINFORCE++, https://arxiv.org/abs/2501.03262; length-weighted: OPO,
https://arxiv.org/abs/2505.23585; greedy-baseline: ReMax, https://arxiv.org/abs/2310.10505 (numbers of the last two: memory). Centred token
rewards: a reproduction of https://arxiv.org/abs/2411.08302.
Deviations: an answer that nobody judged has advantage 0 and counts in no statistic, as in TRL; a group of one has the reward itself, as in verl;
an answer whose group has no other judged answer has advantage 0 [choice].
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.errors import UsageError
from finegrain.online.combine import standardise_rows
from finegrain.online.gae import Returns
from finegrain.online.group_statistics import GroupStatistics, group_statistics
from finegrain.online.token_rewards import Estimate, TokenRewards, is_dense
from finegrain.ops.masked import masked_mean, masked_sum

Rows = Float[Tensor, " B"]
Compare = Callable[[TokenRewards, Rows], Rows]
"""(rewards, one number per answer) -> the answers' advantages."""

COLLAPSES = (
    "takes a baseline of the size of a whole answer's reward from what is left of it at each token; with rewards on every token it pushes all late "
    "tokens one way and collapses. Take e.g. `advantage:group-norm advantage.tokens:centred`, or advantage:gae"
)


@dataclass(frozen=True, kw_only=True)
class WholeAnswer:
    """Every token has its answer's advantage, rewards and leash summed over the answer (TRL): where the rewards stand is lost."""

    erases_density: ClassVar[bool] = True

    def __call__(self, rewards: TokenRewards, compare: Compare) -> Estimate:
        """Advantages."""
        own = compare(rewards, masked_sum(rewards.total, rewards.mask))
        return Estimate(torch.where(rewards.mask, own[:, None], 0.0), None)


@dataclass(frozen=True, kw_only=True)
@checked
class Centred:
    """The answer's advantage plus each token reward's deviation from the answer's mean token reward: the mean over the tokens is the answer's."""

    erases_density: ClassVar[bool] = False

    alpha: NonNegativeFloat = 1.0
    """Weight of the deviations; 0: the answer's advantage alone."""

    def __call__(self, rewards: TokenRewards, compare: Compare) -> Estimate:
        """Advantages."""
        own = compare(rewards, masked_sum(rewards.total, rewards.mask))
        deviation = rewards.total - masked_mean(rewards.total, rewards.mask)[:, None]
        return Estimate(torch.where(rewards.mask, own[:, None] + self.alpha * deviation, 0.0), None)


@dataclass(frozen=True, kw_only=True)
class LeashToGo:
    """The advantage of the rewards without the leash, plus the leash from each token on (OpenRLHF). For rewards at the answer's end alone."""

    erases_density: ClassVar[bool] = True

    def __call__(self, rewards: TokenRewards, compare: Compare) -> Estimate:
        """Advantages; raises UsageError for rewards on tokens."""
        if is_dense(rewards.rollout):
            raise UsageError(f"tokens:leash-to-go {COLLAPSES}")
        own = compare(rewards, masked_sum(rewards.score, rewards.mask))
        to_go = rewards.penalty.flip(1).cumsum(1).flip(1)
        return Estimate(torch.where(rewards.mask, own[:, None] + to_go, 0.0), None)


Tokens = WholeAnswer | Centred | LeashToGo


@dataclass(frozen=True, kw_only=True)
class GroupStd:
    """The group's own standard deviation."""

    def __call__(self, rewards: TokenRewards, totals: Rows, own: GroupStatistics) -> Rows:
        """One number per answer; 1 for a group of one."""
        return torch.where(own.size > 1, own.std, 1.0)


@dataclass(frozen=True, kw_only=True)
class BatchStd:
    """That of all answers of the buffer."""

    def __call__(self, rewards: TokenRewards, totals: Rows, own: GroupStatistics) -> Rows:
        """One number per answer."""
        return standardise_rows(totals, rewards.judged, 1.0)[1].expand_as(totals)


def _compare_with_mean(rewards: TokenRewards, totals: Rows) -> tuple[Rows, GroupStatistics]:
    """The total minus the mean of its group; the total itself in a group of one."""
    own = group_statistics(totals, rewards.rollout.group, rewards.judged)
    return torch.where(rewards.judged & (own.size == 1), totals, own.deviation), own


@dataclass(frozen=True, kw_only=True)
@checked
class GroupComparison:
    """What estimators that compare the answers to one prompt share."""

    reads_values: ClassVar[bool] = False

    tokens: Tokens = field(default_factory=WholeAnswer)
    """How the tokens of an answer share its advantage."""

    @property
    def erases_density(self) -> bool:
        """Whether all tokens of an answer get the same."""
        return self.tokens.erases_density

    def __call__(self, rewards: TokenRewards) -> Estimate:
        """Advantages."""
        return self.tokens(rewards, self._compare)

    def _compare(self, rewards: TokenRewards, totals: Rows) -> Rows:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut(GroupComparison):
    """The reward minus the mean of the other answers' (RLOO)."""

    def _compare(self, rewards: TokenRewards, totals: Rows) -> Rows:
        deviation, own = _compare_with_mean(rewards, totals)
        return deviation * torch.where(own.judged > 1, own.judged / (own.judged - 1).clamp(min=1), 1.0)


@dataclass(frozen=True, kw_only=True)
@checked
class GroupNorm(GroupComparison):
    """The reward minus the group's mean, over a standard deviation (GRPO)."""

    scale: GroupStd | BatchStd = field(default_factory=GroupStd)
    """Of whom the standard deviation is."""
    epsilon: PositiveFloat = 1e-4
    """Added to it: 1e-4 in TRL, 1e-6 in verl, 1e-9 in OpenRLHF, which differ visibly in groups of two."""

    def _compare(self, rewards: TokenRewards, totals: Rows) -> Rows:
        deviation, own = _compare_with_mean(rewards, totals)
        return deviation / (self.scale(rewards, totals, own) + self.epsilon)


@dataclass(frozen=True, kw_only=True)
class GroupMean(GroupComparison):
    """The reward minus the group's mean (Dr. GRPO; the baseline of REINFORCE++, where whitening follows)."""

    def _compare(self, rewards: TokenRewards, totals: Rows) -> Rows:
        return _compare_with_mean(rewards, totals)[0]


@dataclass(frozen=True, kw_only=True)
class LengthWeighted(GroupComparison):
    """The reward minus the group's mean, weighted by the answers' lengths (OPO)."""

    def _compare(self, rewards: TokenRewards, totals: Rows) -> Rows:
        lengths = rewards.rollout.lengths.to(totals.dtype)
        own = group_statistics(totals, rewards.rollout.group, rewards.judged, lengths)
        return torch.where(rewards.judged & (own.size == 1), totals, own.deviation)


@dataclass(frozen=True, kw_only=True)
class GreedyBaseline:
    """The reward to go, leash included, minus the reward of the greedy answer to the prompt (ReMax). For rewards at the answer's end alone."""

    erases_density: ClassVar[bool] = True
    reads_values: ClassVar[bool] = False

    def __call__(self, rewards: TokenRewards) -> Estimate:
        """Advantages; raises UsageError without greedy answers, and for rewards on tokens."""
        if rewards.greedy is None:
            raise UsageError("advantage:greedy-baseline needs the reward of a greedy answer to every prompt")
        if is_dense(rewards.rollout):
            raise UsageError(f"advantage:greedy-baseline {COLLAPSES}")
        live = rewards.mask & (rewards.judged & ~rewards.greedy.isnan())[:, None]
        to_go = Returns()(rewards).advantage
        return Estimate(torch.where(live, to_go - rewards.greedy[:, None], 0.0), None)
