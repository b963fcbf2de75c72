"""From the rewards of a buffer to what its updates train on: baselines of a fixed sampler, combination, transforms, leash, advantage, whitening.

Source: the pipeline of PPO for language models, https://arxiv.org/abs/1909.08593, as TRL, verl and OpenRLHF run it.
Deviations: see the stages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.errors import UsageError
from finegrain.online.combine import Combination, SumRewards
from finegrain.online.contrast import contrast_rewards
from finegrain.online.facts import buffer_facts
from finegrain.online.gae import GAE, Returns
from finegrain.online.groups import COLLAPSES, GreedyBaseline, GroupComparison, GroupMean, GroupNorm, LeashToGo, LeaveOneOut, LengthWeighted
from finegrain.online.leash import FixedBeta, Free, InReward, Leash, adapt_beta, estimate_kl, start_beta
from finegrain.online.macro import MacroGAE
from finegrain.online.policy_loss import BETA
from finegrain.online.rollout import Ended, Rollout
from finegrain.online.token_rewards import TokenRewards, is_dense
from finegrain.online.transforms import Transforms
from finegrain.online.whiten import Unwhitened, Whitening

Advantage = GAE | Returns | LeaveOneOut | GroupNorm | GroupMean | LengthWeighted | GreedyBaseline | MacroGAE


@dataclass(frozen=True, kw_only=True)
@checked
class Stages:
    """What is done to the rewards of a buffer."""

    combination: Combination = field(default_factory=SumRewards)
    """How several rewards become one."""
    transforms: Transforms = field(default_factory=Transforms)
    """Penalties, scale, clips and whitening of rewards."""
    leash: Leash = field(default_factory=Free)
    """What keeps the policy near its reference."""
    advantage: Advantage = field(default_factory=GAE)
    """How much better a token was than expected."""
    whitening: Whitening = field(default_factory=Unwhitened)
    """What is done to advantages over all tokens of the buffer, after the returns are formed."""

    def __post_init__(self) -> None:
        """Stops on stages that undo one another."""
        if self.combination.normalises and isinstance(self.advantage, (GroupNorm, LeaveOneOut, LengthWeighted)):
            raise UsageError("combination:normalise-then-sum has normalised within groups already: take advantage:group-mean with it")

    def start(self) -> "StageState":
        """The state before the first buffer."""
        return StageState(start_beta(self.leash))

    def check_density(self, dense: bool) -> list[str]:
        """Warnings, in words, for rewards on tokens (`dense`) or at the end alone; raises UsageError for a pairing that collapses."""
        if not dense:
            return []
        tokens = self.advantage.tokens if isinstance(self.advantage, GroupComparison) else self.advantage
        if isinstance(tokens, (LeashToGo, GreedyBaseline)):
            raise UsageError(f"{'tokens:leash-to-go' if isinstance(tokens, LeashToGo) else 'advantage:greedy-baseline'} {COLLAPSES}")
        if self.advantage.erases_density:
            return [
                "the reward says which tokens earned it, and this advantage gives all tokens of an answer the same, so that it is lost: "
                "take e.g. `advantage:group-norm advantage.tokens:centred`, or advantage:gae"
            ]
        return []


class StageState(NamedTuple):
    """What goes on from buffer to buffer."""

    beta: float
    """Weight of the leash."""


class Update(NamedTuple):
    """What the updates of a buffer train on."""

    advantage: Float[Tensor, "B T"]
    """0 outside the mask, in answers that nobody judged and in those that do not train."""
    returns: Float[Tensor, "B T 1"] | None
    """What values regress to; None without a critic."""
    weight: Float[Tensor, "B T"] | None
    """Weight of each token in the losses; None: all tokens count."""
    columns: Mapping[str, Float[Tensor, " B"]]
    """Numbers of the rows that the policy loss reads."""
    rewards: TokenRewards
    """Rewards of the tokens, after transforms, for logs and pages."""
    facts: Mapping[str, float]
    """Numbers of the buffer to log."""
    warnings: tuple[str, ...]
    """What is wrong with the stages for these rewards, in words."""
    state: StageState
    """For the next buffer."""


def compute_update(rollout: Rollout, stages: Stages, state: StageState, *, greedy: Float[Tensor, " B"] | None = None) -> Update:
    """All stages, on all answers of a buffer at once; `greedy`: the reward of the greedy answer to each answer's prompt, for ReMax.

    Raises UsageError for a stage that misses its input, and for a pairing with rewards on tokens that collapses.
    """
    warnings = stages.check_density(is_dense(rollout))
    plain = stages.combination(rollout)
    combined = plain if rollout.baseline is None else stages.combination(contrast_rewards(rollout))
    answers = stages.transforms.of_answers(combined, rollout)
    rewards = stages.transforms.of_tokens(answers, rollout, _penalty(stages.leash, rollout, state.beta), greedy)
    trains = rewards.judged & (stages.transforms.truncated.trains | (rollout.ended != Ended.LENGTH))
    found = stages.advantage(rewards)
    live = rollout.mask & trains[:, None]
    advantage = stages.whitening(found.advantage, live)
    return Update(
        advantage=advantage,
        returns=None if found.returns is None else torch.where(live, found.returns, 0.0)[..., None],
        weight=_weight(rewards, trains, found.returns is not None),
        columns={BETA: torch.full_like(combined.sequence, state.beta)} if _adapts_loss(stages.leash) else {},
        rewards=rewards,
        facts={**buffer_facts(rewards, plain, advantage, found.returns, live), **({} if isinstance(stages.leash, Free) else {"beta": state.beta})},
        warnings=tuple(warnings),
        state=StageState(adapt_beta(stages.leash, state.beta, rollout.old_logp, rollout.ref_logp, rollout.mask)),
    )


def _penalty(leash: Leash, rollout: Rollout, beta: float) -> Float[Tensor, "B T"]:
    if not isinstance(leash, InReward):
        return torch.zeros_like(rollout.tokens[..., 0])
    if rollout.ref_logp is None:
        raise UsageError("a leash in the reward reads the reference's log-probabilities, and the answers have none")
    return -beta * estimate_kl(leash.estimator, rollout.old_logp, rollout.ref_logp, rollout.mask)


def _adapts_loss(leash: Leash) -> bool:
    return not isinstance(leash, (Free, InReward)) and not isinstance(leash.control, FixedBeta)


def _weight(rewards: TokenRewards, trains: Tensor, critic: bool) -> Float[Tensor, "B T"] | None:
    """0 on answers that do not train: those that were cut, where they are masked; without a return, where a critic would regress to it."""
    out = ~trains & (rewards.judged | critic)
    return torch.where(out[:, None], 0.0, rewards.mask.to(rewards.score.dtype)) if out.any() else None
