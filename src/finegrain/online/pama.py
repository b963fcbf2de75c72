"""PAMA: which of several rewards an update pushes, by a minimum over one number per reward.

    A_i = max(A'_i, 0)  (Noon, "no negative");  I_i = A_i where the token's loss has a gradient: u <= 1 + eps, of a negative A_i u >= 1 - eps
    a_i = mean of I_i over the update's tokens;  s = sum_i c_i a_i = projection of 0 on [min a, max a]
    c: one-hot at the least a (all positive) or the largest (all negative); signs mixed: c_p = a_q / (a_q - a_p), c_q = 1 - c_p

Source: PAMA, https://arxiv.org/abs/2508.07768, Theorem 1, from a detailed note of the paper; a_i and s as in a third party's code (ctwa,
`verl/trainer/ppo/ray_trainer_pama.py`). With Noon every a_i is at least 0: the reward with the least mean advantage is pushed.
Deviations: the loss of `pushed-objective` and of `least-per-token` keeps the advantages of tokens [OURS]; `one-scalar` is ctwa's. The ratio u is
to the policy that sampled; the paper's subscript says the reference, which ctwa reads for a_i alone: `ratio:to-reference`. Of mixed signs p and q
are the least and the largest. a_i is a mean over tokens, whatever the aggregate of the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.checked import ShareBelowOne, checked
from finegrain.online.mixture import LossMixture
from finegrain.online.surrogates import Clip, exponential, log_ratio

Advantages = Float[Tensor, "B T n"]
Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]


class ParetoPoint(NamedTuple):
    """What Theorem 1 says of n numbers."""

    scalar: Float[Tensor, ""]
    """s, their weighted sum that is nearest to 0."""
    weights: Float[Tensor, " n"]
    """c, at least 0 and 1 in sum."""


def project_zero(numbers: Float[Tensor, "... n"]) -> Float[Tensor, "..."]:
    """The point of [least, largest] of the last axis that is nearest to 0."""
    return numbers.amin(-1).clamp(min=0) + numbers.amax(-1).clamp(max=0)


def find_pareto_point(means: Float[Tensor, " n"]) -> ParetoPoint:
    """s and c; of several that are least the first is pushed."""
    order = means.sort(stable=True).indices
    ends = torch.eye(len(means), dtype=means.dtype, device=means.device)[order]
    least, most = means[order[0]], means[order[-1]]
    share = most / torch.where(most > least, most - least, 1.0)
    mixed = share * ends[0] + (1 - share) * ends[-1]
    return ParetoPoint(project_zero(means), torch.where(least >= 0, ends[0], torch.where(most <= 0, ends[-1], mixed)))


@dataclass(frozen=True, kw_only=True)
class Noon:
    """Negative advantages are 0: nothing pushes a token down but the rise of others (the paper)."""

    def __call__(self, advantages: Advantages) -> Advantages:
        """At least 0."""
        return advantages.clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class KeepSigns:
    """The advantages as they are: all three cases of the theorem can occur."""

    def __call__(self, advantages: Advantages) -> Advantages:
        """The same."""
        return advantages


@dataclass(frozen=True, kw_only=True)
class PushedObjective:
    """The loss of the rewards with the weights c, one c for the whole update: tokens keep their advantages [OURS]."""

    reads_means: ClassVar[bool] = True

    def __call__(self, advantages: Advantages, point: ParetoPoint) -> LossMixture:
        """The rewards' own advantages under c."""
        return LossMixture(point.weights, advantages)


@dataclass(frozen=True, kw_only=True)
class LeastPerToken:
    """The theorem at every token: with Noon a token is reinforced by the least of its advantages, so only if every reward likes it [OURS]."""

    reads_means: ClassVar[bool] = False

    def __call__(self, advantages: Advantages, point: ParetoPoint) -> LossMixture:
        """One advantage."""
        return LossMixture(torch.ones_like(point.weights[:1]), project_zero(advantages)[..., None])


@dataclass(frozen=True, kw_only=True)
class OneScalar:
    """The number s is the advantage of every token: no token and no answer is told from another (ctwa)."""

    reads_means: ClassVar[bool] = True

    def __call__(self, advantages: Advantages, point: ParetoPoint) -> LossMixture:
        """One advantage."""
        return LossMixture(torch.ones_like(point.weights[:1]), point.scalar.expand(*advantages.shape[:2], 1))


@dataclass(frozen=True, kw_only=True)
class EachUpdate:
    """a_i is that of the update alone (the paper)."""


@dataclass(frozen=True, kw_only=True)
@checked
class MovingMean:
    """a_i is an exponential mean over the updates, this one included, without the bias of its start [choice]."""

    decay: ShareBelowOne = 0.9
    """Weight of what was, against the update's own."""


@dataclass(frozen=True, kw_only=True)
class ToSampling:
    """u is the ratio to the policy that sampled, that of the clip."""


@dataclass(frozen=True, kw_only=True)
class ToReference:
    """u is the ratio to the reference in a_i alone (ctwa); the loss clips the ratio to the policy that sampled."""


Reading = PushedObjective | LeastPerToken | OneScalar


@dataclass(frozen=True, kw_only=True)
@checked
class PAMA:
    """Each reward has its own values and advantages; a rule of one line says which of them an update pushes."""

    normalises: ClassVar[bool] = False

    reading: Reading = field(default_factory=PushedObjective)
    """What is made of the rule."""
    clamp: Noon | KeepSigns = field(default_factory=Noon)
    """What becomes of negative advantages."""
    average: EachUpdate | MovingMean = field(default_factory=EachUpdate)
    """Over which updates a_i is a mean; whitened rewards have nearly equal a_i, and the least is then close to a coin toss."""
    ratio: ToSampling | ToReference = field(default_factory=ToSampling)
    """Of which u the indicator is."""

    def gate(self, advantages: Advantages, logp: Values, anchor: Values, mask: Mask, clip: Clip) -> Advantages:
        """I_i: the clamped advantages where the clip leaves a gradient, 0 elsewhere; `anchor`: log-probabilities that u is the ratio to."""
        kept = self.clean(advantages, mask)
        ratio = exponential(log_ratio(logp, anchor, mask))[..., None]
        return torch.where(torch.where(kept >= 0, ratio <= 1 + clip.high, ratio >= 1 - clip.low), kept, 0.0)

    def clean(self, advantages: Advantages, mask: Mask) -> Advantages:
        """The clamped advantages, 0 outside the mask."""
        return self.clamp(torch.where(mask[..., None], advantages, 0.0))

    def mix(self, advantages: Advantages, mask: Mask, means: Float[Tensor, " n"]) -> LossMixture:
        """The losses and their weights; `means`: a_i."""
        return self.reading(self.clean(advantages, mask), find_pareto_point(means.to(advantages)))

    def preview(self, advantages: Advantages, mask: Mask) -> LossMixture:
        """At the ratio 1 over a whole buffer, for logs and pages."""
        return self.mix(advantages, mask, self.clean(advantages, mask)[mask].sum(0) / mask.sum().clamp(min=1))

    def facts(self, means: Float[Tensor, " n"], names: Sequence[str]) -> dict[str, Tensor]:
        """c, s, and the place of the reward that is pushed most, counted from 0."""
        point = find_pareto_point(means)
        weights = {f"pama/c/{name}": point.weights[place] for place, name in enumerate(names)}
        return {**weights, "pama/s": point.scalar, "pama/pushed": point.weights.argmax()}
