"""Rewards relative to a fixed policy's answers to the same prompt: r - b(x), b(x) an aggregate of the scores of k of its answers.

Source: contrastive rewards, https://arxiv.org/abs/2403.07708. Abstract, introduction and the two-step recipe were read; that b(x) is a mean and
k = 5 are from memory.
Deviations: max, min, quantile, the scale and the gate are our own [choice].
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import PositiveFloat, Share, checked
from finegrain.errors import UsageError

Baselines = Float[Tensor, "... k"]
"""Scores of k answers of the baseline policy."""
PerPrompt = Float[Tensor, "..."]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean: the expected score of one sample."""

    def __call__(self, scores: Baselines) -> PerPrompt:
        """One number per prompt."""
        return scores.mean(-1)


@dataclass(frozen=True, kw_only=True)
class Max:
    """The best of k; grows with k."""

    def __call__(self, scores: Baselines) -> PerPrompt:
        """One number per prompt."""
        return scores.amax(-1)


@dataclass(frozen=True, kw_only=True)
class Min:
    """The worst of k; falls with k."""

    def __call__(self, scores: Baselines) -> PerPrompt:
        """One number per prompt."""
        return scores.amin(-1)


@dataclass(frozen=True, kw_only=True)
@checked
class Quantile:
    """A quantile, linear between adjacent scores."""

    level: Share = 0.5
    """0 is the smallest score, 0.5 the median, 1 the largest."""

    def __call__(self, scores: Baselines) -> PerPrompt:
        """One number per prompt."""
        return scores.quantile(self.level, dim=-1)


Aggregate = Mean | Max | Min | Quantile


@dataclass(frozen=True, kw_only=True)
class Unscaled:
    """The reward's own units."""

    def __call__(self, scores: Baselines) -> PerPrompt:
        """1 per prompt."""
        return torch.ones_like(scores[..., 0])


@dataclass(frozen=True, kw_only=True)
@checked
class BaselineStd:
    """Sample standard deviation of the baseline's scores: removes differences in scale between prompts, and with them their certainty."""

    floor: PositiveFloat = 1e-2
    """The smallest divisor, in the reward's units."""

    def __call__(self, scores: Baselines) -> PerPrompt:
        """One divisor per prompt; raises UsageError where k is 1."""
        if scores.shape[-1] < 2:
            raise UsageError(
                "one baseline score has no standard deviation; score several answers per prompt, or leave rewards in their units (scale: unscaled)"
            )
        return scores.std(-1).clamp(min=self.floor)


Scale = Unscaled | BaselineStd


@dataclass(frozen=True, kw_only=True)
@checked
class Difference:
    """(r - b) / scale."""

    aggregate: Aggregate = field(default_factory=Mean)
    """The aggregate of the k baseline scores that is subtracted."""
    scale: Scale = field(default_factory=Unscaled)
    """The divisor of the difference."""

    def __call__(self, reward: PerPrompt, scores: Baselines) -> PerPrompt:
        """Relative reward of one answer per prompt."""
        return (reward - self.aggregate(scores)) / self.scale(scores)


@dataclass(frozen=True, kw_only=True)
@checked
class AboveOnly:
    """(r - b) / scale where r > b, else 0: an answer below the baseline is not penalised."""

    aggregate: Aggregate = field(default_factory=Mean)
    """The aggregate of the k baseline scores that is subtracted."""
    scale: Scale = field(default_factory=Unscaled)
    """The divisor of the difference."""

    def __call__(self, reward: PerPrompt, scores: Baselines) -> PerPrompt:
        """Relative reward of one answer per prompt, never negative."""
        return Difference(aggregate=self.aggregate, scale=self.scale)(reward, scores).clamp(min=0)


Contrast = Difference | AboveOnly


def win_share(reward: PerPrompt, scores: Baselines) -> PerPrompt:
    """Share of the k baseline answers that score less than the answer; an equal score counts half."""
    return torch.where(reward[..., None] == scores, 0.5, (reward[..., None] > scores).double()).mean(-1)
