"""A table of logits that must learn to say one token: no model, all stages and losses of an algorithm."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from finegrain.online.algorithm import Algorithm
from finegrain.online.leash import Leash
from finegrain.online.rollout import Rollout
from finegrain.online.stages import compute_update
from finegrain.types import Pair, SampledTokens, Side

PLACES, TOKENS, GOOD, PROMPTS, ANSWERS = 8, 16, 7, 4, 8
SEEDS = (0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4)))


@dataclass
class Outcome:
    rewards: list[float]
    """Mean reward of each buffer."""
    kl: list[float]
    """As logged, by buffer."""


def best_under(beta: float) -> float:
    """The mean reward of the policy that is best under a KL from the uniform one with this weight: its odds are exp(reward / beta)."""
    odds = math.exp(1 / PLACES / beta)
    return odds / (odds + TOKENS - 1)


def learn(
    algorithm: Algorithm,
    *,
    leash: Leash | None = None,
    seed: int = 0,
    buffers: int = 24,
    rate: float = 0.3,
    shuffled: bool = False,
    dense: bool = False,
) -> Outcome:
    """The reward of an answer is its share of the good token; shuffled: given to other answers of the buffer; dense: on the tokens."""
    generator = torch.Generator().manual_seed(seed)
    logits, values = torch.zeros(PLACES, TOKENS, requires_grad=True), torch.zeros(PLACES, requires_grad=True)
    optimiser = torch.optim.Adam([logits, values], lr=rate)
    stages, count = algorithm.stages(leash=leash), PROMPTS * ANSWERS
    loss, state, outcome = algorithm.policy_loss(stages), stages.start(), Outcome([], [])
    mask = torch.ones(count, PLACES, dtype=torch.bool)
    for _ in range(buffers):
        ids = torch.multinomial(logits.detach().softmax(-1), count, replacement=True, generator=generator).T
        good = (ids == GOOD).float() / PLACES
        outcome.rewards.append(float(good.sum(1).mean()))
        given = good[torch.randperm(count, generator=generator)] if shuffled else good
        old, before = _logps(logits, ids).detach(), values.detach().expand(count, PLACES)[..., None]
        rollout = Rollout(
            group=torch.arange(count) // ANSWERS,
            mask=mask,
            ended=torch.ones(count, dtype=torch.long),
            old_logp=old,
            ref_logp=torch.full_like(old, -torch.tensor(float(TOKENS)).log().item()),
            values=before,
            sequence=torch.zeros(count, 1) if dense else given.sum(1, keepdim=True),
            tokens=given[..., None] if dense else torch.zeros(count, PLACES, 1),
        )
        update = compute_update(rollout, stages, state)
        state = update.state
        outcome.kl.append(update.facts["kl"])
        for _ in range(algorithm.updates):
            sampled = SampledTokens(old, update.advantage, update.returns, before)
            side = Side(logp=_logps(logits, ids), mask=mask, values=values.expand(count, PLACES)[..., None], weight=update.weight, sampled=sampled)
            terms = loss(Pair(sides={"answer": side}))
            optimiser.zero_grad()
            torch.stack([term.coefficient * term.value.sum() / term.count.sum() for term in terms.values()]).sum().backward()
            optimiser.step()
    return outcome


def _logps(logits: Tensor, ids: Tensor) -> Tensor:
    return logits.log_softmax(-1).expand(len(ids), -1, -1).gather(-1, ids[..., None])[..., 0]
