"""The objective of online reinforcement learning: surrogate, leash in the loss, values of a shared critic, entropy bonus.

    sum of policy + beta KL + coefficient value - entropy_coefficient entropy, each a mean with its own count

Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, eq. 9; as TRL, verl and OpenRLHF run it.
Deviations: none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.online.aggregate import Aggregate, TokenMean
from finegrain.online.leash import AdaptiveBeta, Free, InLoss, InReward, estimate_kl
from finegrain.online.surrogates import Clip, Surrogate, TokenLoss, exponential, log_ratio
from finegrain.online.value_loss import live_weight, read_sampled, value_term
from finegrain.types import Pair, Side, Term, Terms

BETA = "leash_beta"
"""Column that the maker of the rows fills with the weight of an adaptive leash in the loss."""


@dataclass(frozen=True, kw_only=True)
class NoCritic:
    """No values are trained."""


@dataclass(frozen=True, kw_only=True)
@checked
class SharedCritic:
    """A value head on the policy's hidden states."""

    coefficient: NonNegativeFloat = 0.1
    """Weight of the value loss beside the policy's (TRL's PPO)."""
    clip: PositiveFloat | None = 0.2
    """How far a value may move from the old one and still gain, in units of the return (TRL; OpenRLHF and verl: 0.5); None: no clip."""


@dataclass(frozen=True, kw_only=True)
@checked
class SeparateCritic:
    """A model of its own with an optimiser of its own (`ValueLoss`)."""

    learning_rate: PositiveFloat = 9e-6
    """OpenRLHF's."""
    clip: PositiveFloat | None = 0.2
    """As in `SharedCritic`."""


Critic = SharedCritic | SeparateCritic | NoCritic


@dataclass(frozen=True, kw_only=True)
@checked
class PolicyLoss:
    """What an update of the policy minimises."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)

    surrogate: Surrogate = field(default_factory=Clip)
    """Loss of a token by its ratio to the policy that sampled."""
    aggregate: Aggregate = field(default_factory=TokenMean)
    """How losses of tokens are averaged."""
    leash: InReward | InLoss | Free = field(default_factory=Free)
    """A term of the loss where it is `InLoss`; otherwise not read here."""
    critic: Critic = field(default_factory=NoCritic)
    """Whose values are trained; a shared critic's here."""
    entropy: NonNegativeFloat = 0.0
    """Weight of the entropy bonus, per nat; 0: none."""
    single: bool = False
    """Whether a buffer gets one update: then the policy that sampled is this one, and its log-probabilities those of the pass."""
    learning_rate: PositiveFloat = 1e-6
    """TRL's for GRPO."""
    temperature: PositiveFloat = 1.0
    """At which the answers were sampled."""

    @property
    def needs(self) -> frozenset[str]:
        """Log-probabilities, the reference for a leash in the loss, entropies for the bonus."""
        optional = {"reference": isinstance(self.leash, InLoss), "entropy": self.entropy > 0}
        return frozenset({"logp", "sampled"} | {name for name, wanted in optional.items() if wanted})

    @property
    def values(self) -> int:
        """1 with a shared critic."""
        return int(isinstance(self.critic, SharedCritic))

    @property
    def made(self) -> tuple[str, ...]:
        """The weight of an adaptive leash."""
        return (BETA,) if isinstance(self.leash, InLoss) and isinstance(self.leash.control, AdaptiveBeta) else ()

    def __call__(self, pair: Pair) -> Terms:
        """The terms policy, value, kl and entropy, as far as they are asked for."""
        side = pair.answer
        weight = live_weight(side)
        terms: Terms = {"policy": self.aggregate(self._tokens(side).loss, _policy_weight(side))}
        if isinstance(self.critic, SharedCritic):
            terms["value"] = replace(value_term(side, self.critic.clip), coefficient=self.critic.coefficient)
        if isinstance(self.leash, InLoss):
            terms["kl"] = self._leash_term(self.leash, side, weight, pair.columns)
        if self.entropy > 0:
            if side.entropy is None:
                raise ValueError("an entropy bonus reads Side.entropy")
            terms["entropy"] = replace(self.aggregate(side.entropy, weight), coefficient=-self.entropy)
        return terms

    def measures(self, pair: Pair) -> Terms:
        """Shares of clipped tokens, the mean ratio, and the KL from the policy that sampled (k3, nats), over the tokens that train."""
        side = pair.answer
        with torch.no_grad():
            live, found = _policy_weight(side) != 0, self._tokens(side)
            moved = log_ratio(side.logp, self._old_logp(side), side.mask)
            numbers = {
                "clip_ratio/low_mean": found.low,
                "clip_ratio/high_mean": found.high,
                "clip_ratio/region_mean": found.low | found.high,
                "clip_ratio/dual_mean": found.dual,
                "ratio": found.ratio,
                "approx_kl": exponential(moved) - 1 - moved,
            }
            return {name: _mean(live, values.to(moved.dtype)) for name, values in numbers.items()}

    def _old_logp(self, side: Side) -> Float[Tensor, "B T"]:
        return side.logp.detach() if self.single else read_sampled(side).old_logp

    def _tokens(self, side: Side) -> TokenLoss:
        return self.surrogate(side.logp, self._old_logp(side), read_sampled(side).advantage, side.mask)

    def _leash_term(self, leash: InLoss, side: Side, weight: Float[Tensor, "B T"], columns: Mapping[str, Float[Tensor, " B"]]) -> Term:
        if side.ref_logp is None:
            raise ValueError("a leash in the loss reads Side.ref_logp")
        kl = estimate_kl(leash.estimator, side.logp, side.ref_logp, side.mask)
        if leash.corrected:
            kl = kl * exponential(log_ratio(side.logp, self._old_logp(side), side.mask))
        term = self.aggregate(kl, weight)
        return replace(term, value=term.value * columns[BETA]) if self.made else replace(term, coefficient=leash.beta)


def _policy_weight(side: Side) -> Float[Tensor, "B T"]:
    """Weight of each token in the surrogate: that of all terms, and the mask of the policy."""
    weight, keep = live_weight(side), read_sampled(side).keep
    return weight if keep is None else torch.where(side.mask, weight * keep, 0.0)


def _mean(live: Tensor, values: Float[Tensor, "B T"]) -> Term:
    return Term(torch.where(live, values, 0.0).sum(-1), live.sum(-1).to(values.dtype))
