"""The answers of one buffer and all that is known of them: what every stage of online RL reads.

Shape letters: B answers of all prompts, T tokens (padded), n rewards, K values. Every process holds the whole buffer, on the CPU, so that
baselines, whitening and selection are plain functions of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Ended(IntEnum):
    """How an answer came to its end."""

    LENGTH = 0
    """Cut at the largest number of tokens, or where the context was full."""
    END_TOKEN = 1
    STOP_STRING = 2


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """All answers of a buffer."""

    group: Int[Tensor, " B"]
    """Which prompt of the buffer an answer belongs to; answers of a prompt stand together."""
    mask: Bool[Tensor, "B T"]
    """True on the sampled tokens, the end token included; False on padding and on tokens of others within an answer (tool results)."""
    ended: Int[Tensor, " B"]
    """`Ended`."""
    old_logp: Float[Tensor, "B T"]
    """log pi, nats, of the policy that sampled, in training numerics, at the sampling temperature; anything where the mask is False."""
    ref_logp: Float[Tensor, "B T"] | None = None
    """The same of the reference; None where there is no leash."""
    values: Float[Tensor, "B T K"] | None = None
    """Value estimates before each token; None without a critic."""
    entropy: Float[Tensor, "B T"] | None = None
    """Entropy, nats, of the distribution that each token was drawn from; None where nobody asked."""
    sequence: Float[Tensor, "B n"]
    """Rewards of whole answers that stand on no token of their own; NaN where a reward did not judge the answer, 0 where all of it is in `tokens`."""
    tokens: Float[Tensor, "B T n"]
    """Rewards per token, without those of `sequence`; 0 where there are none."""
    std: Float[Tensor, "B n"] | None = None
    """Standard deviation of each answer's reward; None means unknown."""
    segment: Int[Tensor, "B T"] | None = None
    """Segment (macro action) of each token: 0, 1, ... within a row, -1 outside the mask; None: nobody cut the answers."""
    ids: Int[Tensor, "B T"] | None = None
    """The sampled token ids; None where nobody asked. Random n-grams are drawn by them."""
    baseline: Float[Tensor, "B n"] | None = None
    """What a fixed sampler's answers to the prompt score, subtracted from each reward; NaN: that reward has no baseline. None: none has one."""
    baseline_scale: Float[Tensor, "B n"] | None = None
    """What the difference is divided by; None: 1."""
    above_only: bool = False
    """Whether a reward that is not above its baseline counts as 0."""
    weights: tuple[float, ...] = (1.0,)
    """(n,) of the rewards in their sum."""
    names: tuple[str, ...] = ()
    """(n,) of the rewards, for logs; empty: their places, from 0."""
    columns: Mapping[str, Float[Tensor, " B"]] = field(default_factory=dict)
    """Numbers of the prompts' rows by name."""

    @property
    def totals(self) -> Float[Tensor, "B n"]:
        """Of every answer by reward, with those of its tokens; NaN where it was not judged."""
        return self.sequence + torch.where(self.mask[..., None], self.tokens, 0.0).sum(1).to(self.sequence.dtype)

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        """Sampled tokens of each answer."""
        return self.mask.sum(-1)

    @property
    def judged(self) -> Bool[Tensor, " B"]:
        """Answers that every reward judged."""
        return ~self.sequence.isnan().any(-1)
