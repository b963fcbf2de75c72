"""One reward per answer for an optimiser, from scores with members or with an uncertainty.

Source: nominal, least and mixed reward of Yan et al. 2024, https://arxiv.org/abs/2409.15360 (from third-party digests); mean - k sd and
mean - k var of Yang et al. 2024, https://arxiv.org/abs/2402.13210, and, with members, UWO of Coste et al. 2023, https://arxiv.org/abs/2310.02743.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, Share, checked
from finegrain.errors import UsageError
from finegrain.types import Scored

Rewards = Float[Tensor, " B"]


@dataclass(frozen=True, kw_only=True)
class MeanReward:
    """The mean; uncertainty is ignored."""

    def __call__(self, scored: Scored) -> Rewards:
        """One reward per answer."""
        return scored.mean


@dataclass(frozen=True, kw_only=True)
class PerSample:
    """The minimum of the members' rewards, for each answer separately."""

    def __call__(self, scored: Scored) -> Rewards:
        """One reward per answer."""
        return _members(scored).amin(0)


@dataclass(frozen=True, kw_only=True)
class PerBatch:
    """The member with the lowest mean over the batch: the minimum is outside the expectation. Rows depend on their batch."""

    def __call__(self, scored: Scored) -> Rewards:
        """One reward per answer; of equal means, the first member's."""
        members = _members(scored)
        return members[int(members.mean(1).argmin())]


Worst = PerSample | PerBatch


@dataclass(frozen=True, kw_only=True)
class Nominal:
    """The most certain member's reward, for each answer separately; of equally certain ones the first."""

    def __call__(self, scored: Scored) -> Rewards:
        """One reward per answer."""
        if scored.member_std is None:
            raise UsageError(
                "the nominal reward is that of the most certain member, but these members have no standard deviation; use head:gaussian-ensemble"
            )
        return _members(scored).gather(0, scored.member_std.argmin(0, keepdim=True))[0]


@dataclass(frozen=True, kw_only=True)
@checked
class NominalMix:
    """share * nominal + (1 - share) * worst."""

    share: Share = 0.4
    """lambda; 1 uses only the most certain member, 0 only the worst case. The paper's best runs have 0.2 and 0.4."""
    worst: Worst = field(default_factory=PerSample)
    """Where the minimum is taken: per-sample, or per-batch as the formula is written."""

    def __call__(self, scored: Scored) -> Rewards:
        """One reward per answer."""
        worst = self.worst(scored)
        return torch.lerp(worst, Nominal()(scored), self.share)


@dataclass(frozen=True, kw_only=True)
@checked
class MinusStd:
    """mean - k sd."""

    k: NonNegativeFloat = 1.0

    def __call__(self, scored: Scored) -> Rewards:
        """One reward per answer."""
        return scored.mean - self.k * _std(scored)


@dataclass(frozen=True, kw_only=True)
@checked
class MinusVariance:
    """mean - k var; of members without a std of their own the variance has ddof 1, as in PPO runs of Coste et al."""

    k: NonNegativeFloat = 1.0

    def __call__(self, scored: Scored) -> Rewards:
        """One reward per answer."""
        return scored.mean - self.k * _std(scored).square()


@dataclass(frozen=True, kw_only=True)
@checked
class MeanOfPenalties:
    """Mean over the members of mean - k sd, each with its own sd: penalises the members' own uncertainty, not their disagreement."""

    k: NonNegativeFloat = 1.0

    def __call__(self, scored: Scored) -> Rewards:
        """One reward per answer."""
        if scored.member_std is None:
            raise UsageError("a penalty per member needs members with a standard deviation; use head:gaussian-ensemble, or fit a posterior")
        return (_members(scored) - self.k * scored.member_std).mean(0)


OfOneAnswer = MeanReward | PerSample | Nominal | NominalMix | MinusStd | MinusVariance | MeanOfPenalties
"""Aggregates that need no batch."""


def reads_batch(aggregate: OfOneAnswer) -> bool:
    """Whether an answer's reward depends on the other answers of its batch."""
    return isinstance(aggregate, NominalMix) and isinstance(aggregate.worst, PerBatch)


def check_aggregate(aggregate: OfOneAnswer, *, of_function: bool, batched: bool = False) -> None:
    """Raises UsageError for an aggregate that one answer of one reward does not determine; `batched`: all answers of a batch are at hand."""
    if reads_batch(aggregate) and not batched:
        raise UsageError("the least member of a batch depends on what stands in it, and answers are scored one by one: take per-sample")
    if of_function and not isinstance(aggregate, MeanReward):
        raise UsageError("aggregate: weighs what a reward model or several policies are unsure of; a function of your own says one number")


def aggregate_answer(aggregate: OfOneAnswer, answer: Scored) -> float:
    """The reward of one answer, given its score (); raises UsageError where the score lacks what the choice reads."""
    mean, std, members, member_std = (None if value is None else value[..., None] for value in answer)
    assert mean is not None
    return float(aggregate(Scored(mean, std, members, member_std))[0])


def _members(scored: Scored) -> Float[Tensor, "M B"]:
    if scored.members is None:
        raise UsageError("a minimum needs several members; use head:ensemble or head:gaussian-ensemble")
    return scored.members


def _std(scored: Scored) -> Rewards:
    if scored.std is None:
        raise UsageError("a penalty for uncertainty needs one; use an ensemble or a gaussian head, or fit a posterior (finegrain reward posterior)")
    return scored.std
