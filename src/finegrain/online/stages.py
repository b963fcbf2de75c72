"""From the rewards of a buffer to what its updates train on.

Baselines of a fixed sampler, combination, transforms, leash, advantage, whitening, mask, selection, in this order. A combination of advantages comes
last: the other stages are run for each reward, the leash in the reward for each of them in full.

Source: the pipeline of PPO for language models, https://arxiv.org/abs/1909.08593, as TRL, verl and OpenRLHF run it.
Deviations: see the stages. That every reward that is kept apart has the whole leash is ours [choice].
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.checked import checked
from finegrain.errors import UsageError
from finegrain.online.appo import APPO, NEEDS_DENSE, FullMask, TokenMask
from finegrain.online.combine import Apart, Combination, SumAdvantages, SumRewards, split_rollout, sum_rewards
from finegrain.online.contrast import contrast_rewards
from finegrain.online.facts import buffer_facts
from finegrain.online.gae import GAE, Returns
from finegrain.online.groups import COLLAPSES, GreedyBaseline, GroupComparison, GroupMean, GroupNorm, LeashToGo, LeaveOneOut, LengthWeighted
from finegrain.online.leash import FixedBeta, Free, InReward, Leash, adapt_beta, estimate_kl, start_beta
from finegrain.online.macro import MacroGAE
from finegrain.online.pama import PAMA, KeepSigns, ToReference
from finegrain.online.policy_loss import BETA
from finegrain.online.rollout import Ended, Rollout
from finegrain.online.select import KeepAll, Selection, select_answers
from finegrain.online.token_rewards import TokenRewards, is_dense
from finegrain.online.transforms import CombinedRewards, Transforms
from finegrain.online.whiten import Unwhitened, Whitening
from finegrain.ops.masked import masked_sum

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
    by_token: bool = True
    """Whether the surrogate loss lets the advantage of a token move that token alone."""
    mask: TokenMask = field(default_factory=FullMask)
    """Which tokens train the policy."""
    selection: Selection = field(default_factory=KeepAll)
    """Which answers train, once baselines and whitening have seen all."""

    def __post_init__(self) -> None:
        """Stops on stages that undo one another."""
        if self.combination.normalises and isinstance(self.advantage, (GroupNorm, LeaveOneOut, LengthWeighted)):
            raise UsageError("combination:normalise-then-sum has normalised within groups already: take advantage:group-mean with it")
        if isinstance(self.combination, Apart) and isinstance(self.advantage, GreedyBaseline):
            raise UsageError("advantage:greedy-baseline has one greedy reward for each prompt, and this combination keeps rewards apart")
        if isinstance(self.combination, Apart) and self.transforms.baseline:
            raise UsageError(f"the baseline {self.transforms.baseline!r} is that of one reward, and this combination keeps rewards apart")
        if isinstance(self.combination, Apart) and not isinstance(self.combination, SumAdvantages) and not isinstance(self.mask, FullMask):
            raise UsageError("mask:appo goes by the sign of one advantage for each token, and this combination finds it within the update")
        signed = isinstance(self.combination, PAMA) and isinstance(self.combination.clamp, KeepSigns) and self.combination.reading.reads_means
        if signed and not isinstance(self.whitening, Unwhitened):
            raise UsageError("clamp:keep-signs reads means of advantages, and whitened ones have mean 0: take algorithm.whitening:unwhitened")

    @property
    def reads_reference(self) -> bool:
        """Whether the reference's log-probabilities of the answers are read."""
        return not isinstance(self.leash, Free) or (isinstance(self.combination, PAMA) and isinstance(self.combination.ratio, ToReference))

    def count_values(self, rewards: int) -> int:
        """Values per token that a critic has for so many rewards."""
        return rewards if isinstance(self.combination, Apart) else 1

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
        if not self.by_token:
            return [
                "the reward says which tokens earned it, and this surrogate gives all tokens of an answer the mean of their advantages, so that it "
                "is lost: take e.g. algorithm.surrogate:clip"
            ]
        return []


class StageState(NamedTuple):
    """What goes on from buffer to buffer."""

    beta: float
    """Weight of the leash."""
    dense: bool = False
    """Whether a token had a reward of its own so far."""


class Update(NamedTuple):
    """What the updates of a buffer train on."""

    advantage: Float[Tensor, "B T"]
    """0 outside the mask, in answers that nobody judged and in those that do not train."""
    advantages: Float[Tensor, "B T n"] | None
    """Of each reward, where every update finds anew how they are combined; `advantage` is then what they are for logs and pages."""
    returns: Float[Tensor, "B T K"] | None
    """What values regress to, one per reward that is kept apart, NaN where it did not judge the answer; None without a critic."""
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
    keep: Float[Tensor, "B T"] | None = None
    """1 on tokens that train the policy, 0 on those that train the critic alone; None: all train both."""
    rows: Int[Tensor, " S"] | None = None
    """Places of the answers that train, repeated ones several times; None: all, once each."""


def compute_update(
    rollout: Rollout, stages: Stages, state: StageState, *, greedy: Float[Tensor, " B"] | None = None, seed: Sequence[int] = (0,)
) -> Update:
    """All stages, on all answers of a buffer at once; `greedy`: the reward of the greedy answer to each answer's prompt, for ReMax.

    seed: of the draws of a selection, e.g. the run's and the buffer's number.
    Raises UsageError for a stage that misses its input, and for a pairing with rewards on tokens that collapses.
    """
    dense = is_dense(rollout)
    warnings = stages.check_density(dense)
    if isinstance(stages.mask, APPO) and not (dense or state.dense):
        raise UsageError(NEEDS_DENSE)
    plain, rollout = rollout, contrast_rewards(rollout)
    if isinstance(stages.combination, Apart):
        found = _estimate_apart(plain, rollout, stages, stages.combination, state.beta)
    else:
        combined = stages.combination(rollout)
        logged = combined if plain.baseline is None else stages.combination(plain)
        found = _estimate(rollout, stages, combined, logged, state.beta, greedy)
    live = rollout.mask & found.trains[:, None]
    agreeing = stages.mask(found.answers.tokens, found.advantage, live) if isinstance(stages.mask, APPO) else None
    totals = answer_totals(found.answers, rollout)
    selected = None if isinstance(stages.selection, KeepAll) else select_answers(stages.selection, totals, rollout.group, found.trains, seed)
    return Update(
        advantage=found.advantage,
        advantages=found.advantages,
        returns=found.returns,
        weight=_weight(found.rewards, found.trains, masked_answers(rollout, stages), found.returns is not None or found.advantages is not None),
        columns={BETA: torch.full_like(rollout.sequence[:, 0], state.beta)} if _adapts_loss(stages.leash) else {},
        rewards=found.rewards,
        facts={
            **found.facts,
            **({} if isinstance(stages.leash, Free) else {"beta": state.beta}),
            **({} if agreeing is None else agreeing.facts),
            **({} if selected is None else selected.facts(totals, found.trains)),
        },
        warnings=(*warnings, *(() if agreeing is None else agreeing.warnings)),
        state=StageState(adapt_beta(stages.leash, state.beta, rollout.old_logp, rollout.ref_logp, rollout.mask), state.dense or dense),
        keep=None if agreeing is None else agreeing.keep.to(found.advantage.dtype),
        rows=None if selected is None else selected.rows,
    )


class _Estimated(NamedTuple):
    """The part of an update that the rewards decide."""

    answers: CombinedRewards
    """After penalties, scale and clip, without the leash."""
    rewards: TokenRewards
    trains: Bool[Tensor, " B"]
    advantage: Float[Tensor, "B T"]
    advantages: Float[Tensor, "B T n"] | None
    returns: Float[Tensor, "B T K"] | None
    facts: Mapping[str, float]


def _estimate(
    rollout: Rollout,
    stages: Stages,
    combined: CombinedRewards,
    logged: CombinedRewards,
    beta: float,
    greedy: Float[Tensor, " B"] | None = None,
) -> _Estimated:
    """`logged`: the rewards before baselines, for logs."""
    answers = stages.transforms.of_answers(combined, rollout)
    rewards = stages.transforms.of_tokens(answers, rollout, _penalty(stages.leash, rollout, beta), greedy)
    trains = rewards.judged & ~masked_answers(rollout, stages)
    found = stages.advantage(rewards)
    live = rollout.mask & trains[:, None]
    advantage = stages.whitening(found.advantage, live)
    returns = None if found.returns is None else torch.where(live, found.returns, 0.0)[..., None]
    facts = buffer_facts(rewards, logged, advantage, found.returns, live, stages.by_token)
    return _Estimated(answers, rewards, trains, advantage, None, returns, facts)


def masked_answers(rollout: Rollout, stages: Stages) -> Bool[Tensor, " B"]:
    """Answers that were cut, where these do not train."""
    return (rollout.ended == Ended.LENGTH) & (not stages.transforms.truncated.trains)


def _estimate_apart(plain: Rollout, rollout: Rollout, stages: Stages, combination: Apart, beta: float) -> _Estimated:
    """Every stage for each reward alone; what the advantages are together is found here where that takes no gradient."""
    parts = split_rollout(rollout)
    each = [_estimate(one, stages, summed, summed, beta) for one, summed in ((one, sum_rewards(one)) for one in parts)]
    judged, trains = torch.stack([one.rewards.judged for one in each], -1), torch.stack([one.trains for one in each], -1)
    live = rollout.mask & trains.any(-1)[:, None]
    advantages = torch.stack([one.advantage for one in each], -1)
    weights = advantages.new_tensor(rollout.weights)
    if isinstance(combination, SumAdvantages):
        total = (weights * advantages).sum(-1)
    elif isinstance(combination, PAMA):
        total = combination.preview(advantages, live).total
    else:
        total = combination.preview(advantages).total
    total = torch.where(live, total, 0.0)
    score = (weights.to(each[0].rewards.score) * torch.stack([one.rewards.score for one in each], -1)).sum(-1)
    penalty = torch.stack([one.rewards.penalty for one in each], -1).sum(-1) / judged.sum(-1).clamp(min=1)[:, None]
    rewards = TokenRewards(rollout=rollout, score=score, penalty=penalty, judged=judged.any(-1))
    facts = {**buffer_facts(rewards, sum_rewards(plain), total, None, live, stages.by_token), **_explained(parts, each)}
    given = [one.returns for one in each if one.returns is not None]
    returns = torch.where(trains[:, None] | ~live[..., None], torch.cat(given, -1), torch.nan) if given else None
    kept = None if isinstance(combination, SumAdvantages) else advantages
    sequence, tokens = (torch.stack(own, -1) for own in ([one.answers.sequence for one in each], [one.answers.tokens for one in each]))
    summed = (torch.where(judged, sequence, 0.0) * weights.to(sequence.dtype)).sum(-1)
    answers = CombinedRewards(torch.where(judged.any(-1), summed, torch.nan), (weights.to(tokens.dtype) * tokens).sum(-1))
    return _Estimated(answers, rewards, trains.any(-1), total, kept, returns, facts)


def _explained(parts: Sequence[Rollout], each: Sequence[_Estimated]) -> dict[str, float]:
    """Explained variance of each reward's returns, and their mean."""
    found = {}
    for place, (rollout, one) in enumerate(zip(parts, each, strict=True)):
        if one.returns is not None:
            name = rollout.names[0] if rollout.names else str(place)
            found[f"value/explained_variance/{name}"] = one.facts.get("value/explained_variance", math.nan)
    known = {name: value for name, value in found.items() if not math.isnan(value)}
    return {**known, "value/explained_variance": sum(known.values()) / len(known)} if known else {}


def answer_totals(answers: CombinedRewards, rollout: Rollout) -> Float[Tensor, " B"]:
    """The whole reward of each answer after penalties, scale and clip, without the leash: what a selection goes by. NaN: not judged."""
    return answers.sequence + masked_sum(answers.tokens, rollout.mask)


def _penalty(leash: Leash, rollout: Rollout, beta: float) -> Float[Tensor, "B T"]:
    if not isinstance(leash, InReward):
        return torch.zeros_like(rollout.tokens[..., 0])
    if rollout.ref_logp is None:
        raise UsageError("a leash in the reward reads the reference's log-probabilities, and the answers have none")
    return -beta * estimate_kl(leash.estimator, rollout.old_logp, rollout.ref_logp, rollout.mask)


def _adapts_loss(leash: Leash) -> bool:
    return not isinstance(leash, (Free, InReward)) and not isinstance(leash.control, FixedBeta)


def _weight(rewards: TokenRewards, trains: Tensor, cut: Tensor, all_judged: bool) -> Float[Tensor, "B T"] | None:
    """0 on answers that do not train: those that were cut, where they are masked; `all_judged`: those that nobody judged, which a critic would
    regress to 0 and which would count in means of advantages.
    """
    out = ~trains & (cut | rewards.judged | all_judged)
    return torch.where(out[:, None], 0.0, rewards.mask.to(rewards.score.dtype)) if out.any() else None
