"""Token rewards as the change of the reward model's score of the answer so far.

Source: R3HF, https://arxiv.org/abs/2411.08302 (v2: RED), eqs. 6 to 8, through a third party's reproduction; the authors released no code.
Deviations: the paper's body was not obtained; boundaries between two tokenizers, and the centred group advantage, follow the reproduction.
"""

from dataclasses import dataclass, field

import torch

from finegrain.checked import Share, checked
from finegrain.credit.redistribute import Mask, Rows, Tokens, mix_with_end
from finegrain.ops.masked import masked_mean, masked_sum
from finegrain.ops.readout import last_place, last_value, place_before
from finegrain.ops.sequence import to_wide


@dataclass(frozen=True, kw_only=True)
class FromPrompt:
    """The first token is compared with the score of the prompt alone: the rewards sum to R - V_0 (the paper's equation)."""

    def __call__(self, first: Rows, empty: Rows) -> Rows:
        """Reward of the first token."""
        return first - empty


@dataclass(frozen=True, kw_only=True)
class FromZero:
    """The first token's score itself: the rewards sum to R (the ablation without dynamic initialisation)."""

    def __call__(self, first: Rows, empty: Rows) -> Rows:
        """Reward of the first token; the prompt's score is not used."""
        return first


@dataclass(frozen=True, kw_only=True)
class FirstZero:
    """No reward for the first token: the rewards sum to R - V_1 (the paper's pseudo-code)."""

    def __call__(self, first: Rows, empty: Rows) -> Rows:
        """Zeros."""
        return torch.zeros_like(first)


First = FromPrompt | FromZero | FirstZero


def prefix_differences(values: Tokens, empty: Rows, mask: Mask, first: First) -> Tokens:
    """V_t - V_{t-1} on the answer's tokens, 0 outside the mask; V_{t-1} is the value at the previous token of the mask, whatever lies between.

    values: the head's output at each token for the answer up to it; empty: at the prompt's last token.
    """
    clean = torch.where(mask, to_wide(values), 0.0).detach()
    before = place_before(mask)
    opening = mask & (before < 0)
    start = first(masked_sum(clean, opening), to_wide(empty).detach())
    return torch.where(mask, torch.where(opening, start[:, None], clean - clean.gather(1, before.clamp(min=0))), 0.0)


def boundary_differences(values: Tokens, empty: Rows, final: Rows, mask: Mask, mapped: Mask, first: First) -> Tokens:
    """The same where the reward model tokenises the text differently: tokens that end where one of its own ends are `mapped`, others get 0.

    values: its score at that common end. final: its score where it pools; what follows the last common end (such as a template's token)
    is added to the answer's last token, so the sum remains R - V_0.
    """
    ends = mapped & mask
    differences = prefix_differences(values, empty, ends, first)
    reached = torch.where(ends.any(1), last_value(torch.where(ends, to_wide(values), 0.0), ends), to_wide(empty)).detach()
    tail = to_wide(final).detach() - reached
    return torch.where(last_place(mask), differences + tail[:, None], differences)


def combine_reward_and_cost(reward: Tokens, cost: Tokens, *, alpha: float = -1.0) -> Tokens:
    """Half of the helpful model's token reward plus alpha times the cost model's (SafeRLHF's two models)."""
    return 0.5 * (reward + alpha * cost)


def penalise_kl(reward: Tokens, logp: Tokens, ref_logp: Tokens, mask: Mask, *, beta: float = 0.02) -> Tokens:
    """Eq. 8: minus beta times the signed, sampled log-ratio of the policy that generated the answer; all detached."""
    return torch.where(mask, reward - beta * (to_wide(logp) - to_wide(ref_logp)), 0.0).detach()


def add_centred_rewards(advantage: Rows, reward: Tokens, mask: Mask, *, alpha: float = 1.0) -> Tokens:
    """A sequence's advantage plus the token rewards' deviation from their mean: its average is the sequence's; alpha 0 is the sequence's alone.

    For group baselines. Subtracting a baseline of the size of a sequence reward from every token's reward collapses, according to the reproduction.
    """
    deviation = to_wide(reward) - masked_mean(to_wide(reward), mask)[:, None]
    return torch.where(mask, to_wide(advantage)[:, None] + alpha * deviation, 0.0).detach()


@dataclass(frozen=True, kw_only=True)
@checked
class R3HF:
    """Token rewards from a reward model read at every position."""

    share: Share = 1.0
    """The share of the reward given as differences; the rest is at the end. The paper's value, except 0.5 in one of its settings."""
    first: First = field(default_factory=FromPrompt)
    """What the first token is compared with."""

    def __call__(self, values: Tokens, empty: Rows, mask: Mask) -> Tokens:
        """Eq. 7: token rewards (B, T), 0 outside the mask, detached."""
        total = last_value(to_wide(values), mask)
        return mix_with_end(prefix_differences(values, empty, mask, self.first), total, mask, share=self.share)
