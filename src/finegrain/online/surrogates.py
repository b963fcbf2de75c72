"""Losses of single tokens by their ratio to the policy that sampled: clipped, with the ratio of the whole answer, and CISPO.

    ratio_t = exp(lp_t - lp_old_t), the difference clipped to +-20 (verl, OpenRLHF);   L_t = -min(ratio A, clip(ratio, 1 - low, 1 + high) A)

Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, eq. 7; dual clip https://arxiv.org/abs/1912.09729 (number: memory); GSPO,
https://arxiv.org/abs/2507.18071; CISPO https://arxiv.org/abs/2506.13585; as TRL, verl and OpenRLHF run them.
Deviations: none.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.checked import PositiveFloat, ShareBelowOne, checked
from finegrain.errors import UsageError
from finegrain.ops.masked import masked_mean, masked_sum
from finegrain.ops.sequence import to_wide

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]

LARGEST = 20.0
"""Nats to which a log-ratio is clipped before the exponential."""


class TokenLoss(NamedTuple):
    """The loss of each token and what the clip did; arbitrary outside the mask, but finite."""

    loss: Values
    low: Mask
    """Tokens with a negative advantage whose ratio is below the clip: they have no gradient."""
    high: Mask
    """Tokens whose advantage is positive and whose ratio is above it."""
    dual: Mask
    """Tokens whose loss the dual clip bounds."""
    ratio: Values


def log_ratio(logp: Values, old_logp: Values, mask: Mask) -> Values:
    """lp - lp_old, nats, 0 outside the mask."""
    return torch.where(mask, to_wide(logp), 0.0) - torch.where(mask, to_wide(old_logp), 0.0)


def exponential(difference: Tensor) -> Tensor:
    """exp of a log-ratio that is clipped to +-20."""
    return difference.clamp(-LARGEST, LARGEST).exp()


def clip_ratio(ratio: Values, advantage: Values, low: float, high: float) -> TokenLoss:
    """The clipped surrogate of given ratios."""
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    below, above = (ratio < 1 - low) & (advantage < 0), (ratio > 1 + high) & (advantage > 0)
    return TokenLoss(loss, below, above, torch.zeros_like(below), ratio)


@dataclass(frozen=True, kw_only=True)
@checked
class Clip:
    """PPO's clip of every token's ratio."""

    keeps_density: ClassVar[bool] = True

    low: ShareBelowOne = 0.2
    """A ratio below 1 - low gains nothing further."""
    high: PositiveFloat = 0.2
    """A ratio above 1 + high gains nothing further (DAPO: 0.28)."""
    dual: PositiveFloat | None = None
    """Dual clip: with a negative advantage the loss is at most this times -advantage, above 1 (verl: 3); None: no bound."""
    largest: PositiveFloat | None = None
    """The ratio is cut here before anything else, above 1 + high (TRL's `delta`); None: it is not."""

    def __post_init__(self) -> None:
        """Stops where a bound is below the clip, so that it would be the clip."""
        if self.dual is not None and self.dual <= 1:
            raise UsageError(f"dual is a bound above 1, got {self.dual:g}")
        if self.largest is not None and self.largest <= 1 + self.high:
            raise UsageError(f"largest is a ratio above 1 + high = {1 + self.high:g}, got {self.largest:g}")

    def __call__(self, logp: Values, old_logp: Values, advantage: Values, mask: Mask) -> TokenLoss:
        """Losses of the tokens."""
        advantage, ratio = torch.where(mask, advantage, 0.0), exponential(log_ratio(logp, old_logp, mask))
        found = clip_ratio(ratio, advantage, self.low, self.high)
        if self.largest is not None:
            clipped = ratio.clamp(1 - self.low, 1 + self.high) * advantage
            found = found._replace(loss=-torch.minimum(ratio.clamp(max=self.largest) * advantage, clipped))
        if self.dual is None:
            return found
        bound = -self.dual * advantage
        return found._replace(
            loss=torch.where(advantage < 0, torch.minimum(found.loss, bound), found.loss), dual=(advantage < 0) & (found.loss > bound)
        )


@dataclass(frozen=True, kw_only=True)
class PlainRatio:
    """The gradient of every token is that of the whole answer's ratio (OpenRLHF, TRL): advantages of single tokens are averaged over the answer."""

    keeps_density: ClassVar[bool] = False

    def __call__(self, mean: Float[Tensor, " B"], logp: Values) -> Values:
        """Log-ratios of the tokens."""
        return mean[:, None].expand_as(logp)


@dataclass(frozen=True, kw_only=True)
class StraightThrough:
    """The value is the answer's ratio, the gradient goes through the token's own log-probability (verl): tokens keep their advantages."""

    keeps_density: ClassVar[bool] = True

    def __call__(self, mean: Float[Tensor, " B"], logp: Values) -> Values:
        """Log-ratios of the tokens."""
        return mean.detach()[:, None] + logp - logp.detach()


@dataclass(frozen=True, kw_only=True)
@checked
class SequenceRatio:
    """GSPO: the ratio is exp of the mean log-ratio of the answer's tokens, and is clipped as one."""

    low: ShareBelowOne = 3e-4
    """As in `Clip`; the mean log-ratio moves far less than that of a token (number: memory, the paper's)."""
    high: PositiveFloat = 4e-4
    """As in `Clip` (number: memory, the paper's)."""
    gradient: StraightThrough | PlainRatio = field(default_factory=StraightThrough)
    """Equal where the advantage is that of the answer; with advantages of tokens only the straight-through form keeps them apart."""

    @property
    def keeps_density(self) -> bool:
        """Whether the advantage of a token moves that token alone."""
        return self.gradient.keeps_density

    def __call__(self, logp: Values, old_logp: Values, advantage: Values, mask: Mask) -> TokenLoss:
        """Losses of the tokens."""
        mean = masked_mean(log_ratio(logp, old_logp, mask), mask)
        ratio = exponential(self.gradient(mean, torch.where(mask, logp, 0.0)))
        return clip_ratio(ratio, torch.where(mask, advantage, 0.0), self.low, self.high)


@dataclass(frozen=True, kw_only=True)
@checked
class SequenceClip:
    """TRL's RLOO: the ratio of the whole answer's probability is clipped; every token has the answer's loss."""

    keeps_density: ClassVar[bool] = False

    low: ShareBelowOne = 0.2
    """As in `Clip`."""
    high: PositiveFloat = 0.2
    """As in `Clip`."""

    def __call__(self, logp: Values, old_logp: Values, advantage: Values, mask: Mask) -> TokenLoss:
        """Losses of the tokens; the mean over an answer's tokens is that of the answer."""
        whole = masked_sum(log_ratio(logp, old_logp, mask), mask)
        return clip_ratio(exponential(whole)[:, None].expand_as(logp), torch.where(mask, advantage, 0.0), self.low, self.high)


@dataclass(frozen=True, kw_only=True)
@checked
class Cispo:
    """The log-probability itself, weighted by the ratio, which is cut above and has no gradient: no token loses its gradient."""

    keeps_density: ClassVar[bool] = True

    largest: PositiveFloat = 5.0
    """The largest ratio (number: memory, the one that TRL's documentation recommends)."""

    def __call__(self, logp: Values, old_logp: Values, advantage: Values, mask: Mask) -> TokenLoss:
        """Losses of the tokens."""
        advantage, ratio = torch.where(mask, advantage, 0.0), exponential(log_ratio(logp, old_logp, mask))
        loss = -ratio.clamp(max=self.largest).detach() * advantage * torch.where(mask, logp, 0.0)
        nothing = torch.zeros_like(mask)
        return TokenLoss(loss, nothing, (ratio > self.largest) & (advantage > 0), nothing, ratio)


Surrogate = Clip | SequenceRatio | SequenceClip | Cispo
