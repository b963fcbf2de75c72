"""A reward read from a small stochastic code that is kept close to N(0, I), so that contradictory labels cannot move it far.

    L = mean_i BCE(label, sigma(r_i(chosen) - r_i(rejected))) + phi * mean KL(code || N(0, I))
    score = sum_i w_i r_i,  w_i = KL_i / sum_j KL_j, or softmax_i(KL_i / tau)

Source: Xue et al. 2024, https://arxiv.org/abs/2301.11774 (equations from memory, not read).
Deviations: means over members and answers instead of sums, a Bayesian bootstrap of the pairs, no standardisation of members (their rewards
are log-odds measured from the prior's code), linear output of the decoder, tau = 1 [all choice], phi = 0.1 [OURS]. A linear proxy of the score
is fitted beside it for the stock classifier, which cannot hold the head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from finegrain.checked import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from finegrain.errors import ModelError
from finegrain.ops.readout import Last, last_value
from finegrain.ops.sequence import to_wide
from finegrain.rewards.bottleneck import ACTIVE, Bottleneck, combine_weighted, confidence_weights
from finegrain.rewards.bradley_terry import bootstrap_weights, bradley_terry_loss, pair_labels
from finegrain.rewards.heads import Outputs, Readout
from finegrain.types import Pair, Scored, Side, Term, Terms


@dataclass(frozen=True, kw_only=True)
class Proportional:
    """Each member is weighted by its code's KL; a member at the prior has weight 0."""

    def __call__(self, kl: Float[Tensor, "E ..."]) -> Float[Tensor, "E ..."]:
        """Weights."""
        return confidence_weights(kl)


@dataclass(frozen=True, kw_only=True)
@checked
class Softmax:
    """exp(KL / tau): differences of KL count, and a member at the prior keeps some weight."""

    tau: PositiveFloat = 1.0
    """Nats of KL that multiply a member's weight by e; a large value gives the plain mean."""

    def __call__(self, kl: Float[Tensor, "E ..."]) -> Float[Tensor, "E ..."]:
        """Weights."""
        return torch.softmax(kl / self.tau, 0)


Weighting = Proportional | Softmax


@dataclass(frozen=True, kw_only=True)
@checked
class Latent:
    """Several stochastic codes with their decoders; the score weights members by how far their codes are from the prior."""

    readout: ClassVar[Readout] = Last()

    members: PositiveInt = 3
    latent: PositiveInt = 16
    """Dimensions of a code; 8 to 32 [choice]."""
    width: PositiveInt = 16
    """Hidden units of a decoder [choice]."""
    weighting: Weighting = field(default_factory=Proportional)
    """How the KL of the codes determines the members' weights in the score: proportional, softmax."""

    @property
    def loss_kind(self) -> type:
        """The loss that fits every part: under other losses the linear proxy stays at zero."""
        return DiversePreferences

    @property
    def outputs(self) -> int:
        """Rewards, sampled rewards and KL of each member, share of active dimensions, and the linear proxy's error."""
        return 3 * self.members + 2

    def module(self, hidden_size: int, generator: torch.Generator) -> nn.Module:
        """A fresh head."""
        return Bottleneck(hidden_size, self.members, self.latent, self.width, generator, self.weighting)

    def tokens(self, outputs: Outputs) -> Scored:
        """The confidence-weighted reward, the members' disagreement under the same weights, and the members."""
        rewards, _, kl = member_parts(outputs, self.members)
        weights = self.weighting(kl)
        mean = combine_weighted(rewards, weights)
        variance = (weights * (rewards - mean).square()).sum(0)
        return Scored(mean, variance.clamp(min=1e-12).sqrt() if self.members > 1 else None, rewards)

    def answer(self, outputs: Outputs, mask: Bool[Tensor, "B T"]) -> Scored:
        """The last token's score, with its weights."""
        score = self.tokens(at_last(outputs, mask))
        return Scored(score.mean[:, 0], None if score.std is None else score.std[:, 0], None if score.members is None else score.members[..., 0])

    def stock(self, weight: Float[Tensor, "K H"]) -> Float[Tensor, "L H"]:
        """The linear proxy's row."""
        return weight

    def facts(self, outputs: Outputs, mask: Bool[Tensor, "B T"]) -> dict[str, Float[Tensor, " B"]]:
        """Logged per answer: the mean KL of the members' codes, nats, and the share of active dimensions."""
        last = at_last(outputs, mask)
        return {"confidence": member_parts(last, self.members)[2].mean(0)[:, 0], "active": last[:, 0, -2]}

    def check(self, facts: Mapping[str, float]) -> None:
        """Raises ModelError for a head whose codes collapsed onto the prior, given the means of its facts over held-out answers."""
        each = facts["confidence"] / self.latent
        if each < ACTIVE:
            raise ModelError(
                f"the codes collapsed onto the prior ({each:.2g} nats per dimension on held-out answers, below {ACTIVE}), so the reward is "
                "constant; lower --loss.phi, train longer, or add pairs"
            )


@dataclass(frozen=True, kw_only=True)
@checked
class DiversePreferences:
    """Hyper-parameters of the constrained fit."""

    roles: ClassVar[tuple[str, ...]] = ("chosen", "rejected")
    head_kind: ClassVar[type] = Latent

    phi: NonNegativeFloat = 0.1
    """Weight of a nat of KL [OURS: from 1 on everything collapsed in our benchmark; the paper has values up to 100, from memory]."""

    def __call__(self, head: Latent, pair: Pair) -> Terms:
        """Cross-entropy of the labels, KL of the codes, and the linear proxy's squared error on differences."""
        chosen, rejected = _last(pair.chosen), _last(pair.rejected)
        good, bad = member_parts(chosen, head.members), member_parts(rejected, head.members)
        losses = bradley_terry_loss((good[1] - bad[1])[..., 0], **pair_labels(pair))
        if head.members > 1:
            losses = losses * bootstrap_weights(pair.columns["row"], head.members)
        kl = 0.5 * (good[2] + bad[2]).mean(0)[:, 0]
        error = (chosen - rejected)[:, 0, -1].square()
        ones = torch.ones_like(kl)
        return {"preference": Term(losses.mean(0), ones), "kl": Term(kl, ones, self.phi), "linear_proxy": Term(error, ones)}


def member_parts(outputs: Outputs, members: int) -> tuple[Tensor, Tensor, Tensor]:
    """(E, B, T) each: rewards at mean codes, at sampled codes, KL of the codes, nats."""
    rewards, sampled, kl = to_wide(outputs)[..., : 3 * members].movedim(-1, 0).chunk(3)
    return rewards, sampled, kl


def at_last(outputs: Outputs, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B 1 K"]:
    """The outputs at each answer's last token; 0 for an answer without one."""
    return torch.stack([last_value(values, mask) for values in to_wide(outputs).unbind(-1)], -1)[:, None]


def _last(side: Side) -> Float[Tensor, "B 1 K"]:
    assert side.outputs is not None, "a reward head's outputs were not requested"
    return at_last(side.outputs, side.mask)
