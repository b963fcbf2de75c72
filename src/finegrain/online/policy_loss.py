"""The objective of online reinforcement learning: surrogate, leash in the loss, values of a shared critic, entropy bonus.

    sum of policy + beta KL + coefficient value - entropy_coefficient entropy, each a mean with its own count

Where rewards are kept apart until the update, the policy's part is the weighted sum of their losses that `pama` or `mgda` finds.

Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, eq. 9; as TRL, verl and OpenRLHF run it.
Deviations: none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import NonNegativeFloat, PositiveFloat, checked
from finegrain.errors import UsageError
from finegrain.online.aggregate import Aggregate, TokenMean
from finegrain.online.leash import AdaptiveBeta, Free, InLoss, InReward, estimate_kl
from finegrain.online.mgda import MGDA
from finegrain.online.mixture import loss_slopes, step_numbers
from finegrain.online.pama import PAMA
from finegrain.online.pama_update import PamaUpdate
from finegrain.online.surrogates import Clip, Surrogate, TokenLoss, exponential, log_ratio
from finegrain.online.value_loss import live_weight, read_advantages, read_old_logp, read_sampled, value_term
from finegrain.types import OUTPUT_GRAM, Pair, Side, Summed, Term, Terms

BETA = "leash_beta"
"""Column that the maker of the rows fills with the weight of an adaptive leash in the loss."""
PAMA_NEEDS_CLIP = "combination:pama reads which tokens a clip of their own ratio leaves a gradient: take algorithm.surrogate:clip"


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
    objectives: tuple[str, ...] = ("reward",)
    """Names of the rewards that have values of their own."""
    mixing: PAMA | MGDA | None = None
    """What weighs the losses of the rewards at every update; None: there is one advantage."""
    entropy: NonNegativeFloat = 0.0
    """Weight of the entropy bonus, per nat; 0: none."""
    single: bool = False
    """Whether a buffer gets one update: then the policy that sampled is this one, and its log-probabilities those of the pass."""
    learning_rate: PositiveFloat = 1e-6
    """TRL's for GRPO."""
    temperature: PositiveFloat = 1.0
    """At which the answers were sampled."""

    def __post_init__(self) -> None:
        """Stops on a loss that PAMA's theorem does not hold of."""
        if isinstance(self.mixing, PAMA) and not isinstance(self.surrogate, Clip):
            raise UsageError(PAMA_NEEDS_CLIP)

    @property
    def needs(self) -> frozenset[str]:
        """Log-probabilities, the reference for a leash in the loss or PAMA's ratio, entropies for the bonus."""
        optional = {"reference": isinstance(self.leash, InLoss) or (self._pama is not None and self._pama.to_reference), "entropy": self.entropy > 0}
        return frozenset({"logp", "sampled"} | {name for name, wanted in optional.items() if wanted})

    @property
    def values(self) -> int:
        """One for each objective with a shared critic."""
        return len(self.objectives) if isinstance(self.critic, SharedCritic) else 0

    @property
    def statistics(self) -> Callable[[Pair], Mapping[str, Summed]] | None:
        """PAMA's sums over the update, which take a pass of their own but where every ratio is 1."""
        return self._pama.sum_gated if self._pama is not None and self._pama.reads_means and not self._pama.at_ratio_1 else None

    @property
    def column_statistics(self) -> Callable[[Pair], Mapping[str, Summed]] | None:
        """The same without a pass."""
        return self._pama.sum_gated if self._pama is not None and self._pama.reads_means and self._pama.at_ratio_1 else None

    @property
    def output_slopes(self) -> Callable[[Pair], Float[Tensor, "B T n"]] | None:
        """MGDA's: of each objective's loss."""
        return self._slopes if isinstance(self.mixing, MGDA) else None

    def state(self) -> dict[str, Tensor]:
        """PAMA's moving mean."""
        return {} if self._pama is None or self._pama.moving is None else self._pama.start()

    @property
    def after_step(self) -> Callable[[Mapping[str, Tensor], Pair], Mapping[str, Tensor]] | None:
        """The update's own sums, for the moving mean."""
        return None if self._pama is None or self._pama.moving is None else self._pama.note

    @property
    def update_state(self) -> Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]] | None:
        """The moving mean with the update's own."""
        return None if self._pama is None or self._pama.moving is None else self._pama.carry

    @property
    def made(self) -> tuple[str, ...]:
        """The weight of an adaptive leash."""
        return (BETA,) if isinstance(self.leash, InLoss) and isinstance(self.leash.control, AdaptiveBeta) else ()

    def __call__(self, pair: Pair) -> Terms:
        """The terms policy, value, kl and entropy, as far as they are asked for."""
        side = pair.answer
        weight = live_weight(side)
        terms: Terms = {"policy": self.aggregate(self._tokens(pair).loss, _policy_weight(side))}
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
            live, found = _policy_weight(side) != 0, self._tokens(pair)
            moved = log_ratio(side.logp, read_old_logp(side, single=self.single), side.mask)
            numbers = {
                "clip_ratio/low_mean": found.low,
                "clip_ratio/high_mean": found.high,
                "clip_ratio/region_mean": found.low | found.high,
                "clip_ratio/dual_mean": found.dual,
                "ratio": found.ratio,
                "approx_kl": exponential(moved) - 1 - moved,
            }
            return {**{name: _mean(live, values.to(moved.dtype)) for name, values in numbers.items()}, **self._mixing_measures(pair)}

    @property
    def _pama(self) -> PamaUpdate | None:
        if not isinstance(self.mixing, PAMA):
            return None
        assert isinstance(self.surrogate, Clip)
        return PamaUpdate(pama=self.mixing, clip=self.surrogate, single=self.single, names=self.objectives)

    def _slopes(self, pair: Pair) -> Float[Tensor, "B T n"]:
        return loss_slopes(pair.answer, self.surrogate, self.aggregate, single=self.single)

    def _tokens(self, pair: Pair) -> TokenLoss:
        side = pair.answer
        old = read_old_logp(side, single=self.single)
        if self._pama is not None:
            return self._pama.mixture(pair).token_loss(self.surrogate, side.logp, old, side.mask)
        if isinstance(self.mixing, MGDA):
            return self.mixing.mix(read_advantages(side), pair.statistics[OUTPUT_GRAM]).token_loss(self.surrogate, side.logp, old, side.mask)
        return self.surrogate(side.logp, old, read_sampled(side).advantage, side.mask)

    def _leash_term(self, leash: InLoss, side: Side, weight: Float[Tensor, "B T"], columns: Mapping[str, Float[Tensor, " B"]]) -> Term:
        if side.ref_logp is None:
            raise ValueError("a leash in the loss reads Side.ref_logp")
        kl = estimate_kl(leash.estimator, side.logp, side.ref_logp, side.mask)
        if leash.corrected:
            kl = kl * exponential(log_ratio(side.logp, read_old_logp(side, single=self.single), side.mask))
        term = self.aggregate(kl, weight)
        return replace(term, value=term.value * columns[BETA]) if self.made else replace(term, coefficient=leash.beta)

    def _mixing_measures(self, pair: Pair) -> Terms:
        if isinstance(self.mixing, MGDA):
            return step_numbers(self.mixing.facts(pair.statistics[OUTPUT_GRAM], self.objectives), live_weight(pair.answer))
        return {} if self._pama is None else self._pama.measures(pair)


def _policy_weight(side: Side) -> Float[Tensor, "B T"]:
    """Weight of each token in the surrogate: that of all terms, and the mask of the policy."""
    weight, keep = live_weight(side), read_sampled(side).keep
    return weight if keep is None else torch.where(side.mask, weight * keep, 0.0)


def _mean(live: Tensor, values: Float[Tensor, "B T"]) -> Term:
    return Term(torch.where(live, values, 0.0).sum(-1), live.sum(-1).to(values.dtype))
