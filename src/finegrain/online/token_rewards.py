"""The rewards of a buffer token by token, apart from the leash, as the advantages read them; and where the reward of a whole answer stands.

Source: at the answer's last token, as OpenRLHF and verl place it; one place behind the end, as TRL's PPO does, for its reference values.
Deviations: none.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.online.rollout import Rollout
from finegrain.ops.readout import last_place

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]
Rows = Float[Tensor, " B"]


@dataclass(frozen=True, kw_only=True)
class TokenRewards:
    """What an advantage is computed from; 0 outside the mask, and in answers that nobody judged."""

    rollout: Rollout
    score: Values
    """The reward at each token, that of the whole answer at its last one included."""
    penalty: Values
    """What the leash adds to it, mostly negative; 0 without a leash in the reward."""
    judged: Bool[Tensor, " B"]
    """Answers that have a reward."""
    greedy: Rows | None = None
    """Reward of the greedy answer to the same prompt; None where nobody sampled one."""

    @property
    def mask(self) -> Mask:
        """The tokens."""
        return self.rollout.mask

    @property
    def total(self) -> Values:
        """Score and leash together."""
        return self.score + self.penalty

    @property
    def values(self) -> Values:
        """The critic's estimates before each token, 0 outside the mask; raises UsageError without a critic."""
        found = self.rollout.values
        if found is None:
            raise UsageError("this advantage reads values, and the answers have none: train a critic")
        if found.shape[-1] != 1:
            raise UsageError(f"the critic has {found.shape[-1]} values per token; rewards that are summed have one")
        return torch.where(self.mask, found[..., 0], 0.0)


class Estimate(NamedTuple):
    """What an advantage gives."""

    advantage: Values
    """0 outside the mask."""
    returns: Values | None
    """What values regress to; None where none are read."""


def is_dense(rollout: Rollout) -> bool:
    """Whether a token before an answer's last one has a reward."""
    before = rollout.mask & ~last_place(rollout.mask)
    return bool((rollout.tokens[before] != 0).any())


def place_at_end(reward: Rows, mask: Mask) -> Values:
    """The reward at the answer's last token, 0 elsewhere; nowhere in an answer without tokens."""
    return torch.where(last_place(mask), reward[:, None], 0.0)


class Behind(NamedTuple):
    """TRL's placing."""

    rewards: Values
    mask: Mask
    """The tokens and the place behind them, which takes part in the loss of the values."""


def place_behind_end(reward: Rows, mask: Mask) -> Behind:
    """The reward one place behind the answer's last token where there is room, else at the last one: for TRL's reference values alone.

    The mask has no holes.
    """
    longer = torch.cat([mask[:, :1], mask[:, :-1]], 1) | mask
    return Behind(place_at_end(reward, longer), longer)
