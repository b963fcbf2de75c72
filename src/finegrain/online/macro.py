"""Advantages over macro actions: consecutive tokens share one value, one reward and one advantage (MA-RLHF).

    r_k = reduce(r_t over the macro), V_k = sum_i sigma_i V_i;  delta_k = r_k + gamma V_(k+1) - V_k;  A_k = delta_k + gamma lam A_(k+1)
    every token: A_t = A_k, return_t = A_k + V_k;  the token that closes an answer is a macro of its own

Source: Chai et al. 2024, https://arxiv.org/abs/2410.02743, and the authors' code.
Deviations: empty macros, through which the code takes a step, do not exist, so that macros of one token are the token estimate exactly; the
authors' summed rewards are from memory of the paper; tokens of others within an answer end a macro as the answer's end does [choice]; parses
are cut before, by whoever has the text, and arrive as `Rollout.segment`.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.checked import Share, checked
from finegrain.errors import UsageError
from finegrain.online.gae import gae
from finegrain.online.rollout import Rollout
from finegrain.online.token_rewards import Estimate, TokenRewards
from finegrain.ops.precision import to_widest
from finegrain.ops.segmenters import Curve, Windows
from finegrain.ops.segments import segment_length, segment_sum, turn_ends, turn_starts
from finegrain.ops.text_segmenters import Perplexity, RandomNGram

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]
Ids = Int[Tensor, "B T"]


@dataclass(frozen=True, kw_only=True)
class GivenSegments:
    """The segments that came with the answers (a parse, sentences, a reward's segments)."""


Termination = Windows | RandomNGram | Perplexity | GivenSegments
"""Fixed n-grams, n-grams of random lengths, rises of the reference's perplexity, or segments made elsewhere."""


def cut_macros(termination: Termination, rollout: Rollout) -> Ids:
    """Macro of each token, 0, 1, ... within a row, -1 outside the mask; the token that closes an answer is alone."""
    if not isinstance(termination, GivenSegments):
        return separate_closing(termination(_curve(termination, rollout), rollout.mask), rollout.mask)
    if rollout.segment is None:
        raise UsageError("termination:given-segments needs segments, and nothing cut these answers: name a credit that does, or another termination")
    return separate_closing(rollout.segment, rollout.mask)


def _curve(termination: Windows | RandomNGram | Perplexity, rollout: Rollout) -> Tensor:
    if termination.reads is Curve.TOKENS:
        return to_widest(_given(rollout.ids, "the sampled token ids", "random-ngram"))
    if termination.reads is Curve.SURPRISAL:
        return -_given(rollout.ref_logp, "the reference's log-probabilities", "perplexity")
    return torch.zeros_like(rollout.old_logp)


def _given(values: Tensor | None, what: str, name: str) -> Tensor:
    if values is None:
        raise UsageError(f"termination:{name} reads {what}, which these answers do not have")
    return values


def separate_closing(segment: Ids, mask: Mask) -> Ids:
    """The segments as macros: renumbered, the last token of each contiguous run alone, a token of none with the one before it in its run."""
    before = torch.cat([torch.full_like(segment[:, :1], -1), segment[:, :-1]], 1)
    opens = mask & (turn_starts(mask) | turn_ends(mask) | ((segment >= 0) & (segment != before)))
    return torch.where(mask, opens.cumsum(1) - 1, -1)


def place_in_macro(ids: Ids) -> Int[Tensor, "B T"]:
    """0, 1, 2 ... from the start of the token's macro; arbitrary outside the mask."""
    place = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    starts = ids != torch.cat([torch.full_like(ids[:, :1], -2), ids[:, :-1]], 1)
    return place - torch.where(starts, place, 0).cummax(1).values


@dataclass(frozen=True, kw_only=True)
class EqualShares:
    """Every token of a macro weighs the same (the authors' runs)."""

    def __call__(self, ids: Ids, dtype: torch.dtype) -> Values:
        """Weights that sum to 1 in every macro; 0 outside the mask."""
        return torch.where(ids >= 0, 1 / segment_length(ids, dtype).clamp(min=1), 0.0)


@dataclass(frozen=True, kw_only=True)
class PositionShares:
    """The i-th token of a macro weighs in proportion to 1/i."""

    def __call__(self, ids: Ids, dtype: torch.dtype) -> Values:
        """Weights that sum to 1 in every macro; 0 outside the mask."""
        raw = torch.where(ids >= 0, 1 / (place_in_macro(ids).to(dtype) + 1), 0.0)
        return torch.where(ids >= 0, raw / segment_sum(raw, ids).clamp(min=torch.finfo(dtype).tiny), 0.0)


@dataclass(frozen=True, kw_only=True)
class MacroMean:
    """A macro's reward is the mean of its tokens' with the shares of its value (the authors' code): the leash is weaker by the macro's length."""

    def __call__(self, rewards: Values, ids: Ids, shares: Values, gamma: float) -> Values:
        """What each token adds to its macro's reward."""
        return rewards * shares


@dataclass(frozen=True, kw_only=True)
class MacroSum:
    """A macro's reward is the discounted sum of its tokens' (the paper, memory)."""

    def __call__(self, rewards: Values, ids: Ids, shares: Values, gamma: float) -> Values:
        """What each token adds to its macro's reward."""
        return rewards * gamma ** place_in_macro(ids).to(rewards.dtype)


@dataclass(frozen=True, kw_only=True)
@checked
class MacroGAE:
    """Generalised advantage estimation over macro actions."""

    erases_density: ClassVar[bool] = False
    reads_values: ClassVar[bool] = True

    termination: Termination = field(default_factory=lambda: Windows(size=5))
    """Where a macro ends; `Windows(size=1)` is the estimate over tokens."""
    shares: EqualShares | PositionShares = field(default_factory=EqualShares)
    """How the tokens' values make the macro's."""
    reward: MacroMean | MacroSum = field(default_factory=MacroMean)
    """How their rewards do."""
    gamma: Share = 1.0
    """Discount per macro."""
    lam: Share = 0.95
    """As in `GAE`, from macro to macro."""

    def __call__(self, rewards: TokenRewards) -> Estimate:
        """Advantages and returns, the same on all tokens of a macro."""
        found = estimate_macros(self, rewards.total, rewards.values, cut_macros(self.termination, rewards.rollout))
        return Estimate(_broadcast(found.advantages, found.ids), _broadcast(found.advantages + found.values, found.ids))


@dataclass(frozen=True, kw_only=True)
class Macros:
    """Numbers of the macros of each answer; 0 behind its last one. K: macros (padded)."""

    ids: Ids
    rewards: Float[Tensor, "B K"]
    values: Float[Tensor, "B K"]
    advantages: Float[Tensor, "B K"]


def estimate_macros(settings: MacroGAE, rewards: Values, values: Values, ids: Ids) -> Macros:
    """Rewards, values and advantages of the macros; `ids` as `cut_macros` gives them."""
    shares = settings.shares(ids, values.dtype)
    own_rewards = _gather(settings.reward(torch.where(ids >= 0, rewards, 0.0), ids, shares, settings.gamma), ids)
    own_values = _gather(torch.where(ids >= 0, values, 0.0) * shares, ids)
    present = _gather((ids >= 0).to(values.dtype), ids) > 0
    found = gae(own_rewards, own_values, present, gamma=settings.gamma, lam=settings.lam)
    return Macros(ids=ids, rewards=own_rewards, values=own_values, advantages=found.advantages)


def _gather(values: Values, ids: Ids) -> Float[Tensor, "B K"]:
    """The sum over each macro's tokens."""
    width = int(ids.max()) + 1 if ids.numel() else 0
    found = values.new_zeros(len(values), max(0, width))
    return found.scatter_add(1, ids.clamp(min=0), torch.where(ids >= 0, values, 0.0)) if width > 0 else found


def _broadcast(values: Float[Tensor, "B K"], ids: Ids) -> Values:
    if values.shape[1] == 0:
        return torch.zeros(ids.shape, dtype=values.dtype, device=ids.device)
    return torch.where(ids >= 0, values.gather(1, ids.clamp(min=0)), 0.0)
