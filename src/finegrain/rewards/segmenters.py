"""Where segments of an answer end for a reward that is learnt segment by segment. The token that closes a turn (EOS) stands in no segment.

Source: Yin et al. 2025, https://arxiv.org/abs/2501.02790, entropy cut-off and end rules as in the authors' code.
Deviations: every turn of an answer of several turns is cut on its own [choice]; fixed windows are ours [OURS].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.errors import UsageError
from finegrain.ops.segments import place_in_turn, turn_ends, turn_starts

Values = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]
Ids = Int[Tensor, "B T"]


def ids_of_ends(ends: Mask, mask: Mask) -> Ids:
    """Segment ids of the segments that end at `ends`; a turn's last segment ends right before its closing token, which has id -1.

    A turn of one token is one segment. Ends at a closing token, or off the mask, say nothing.
    """
    starts, closing = turn_starts(mask), turn_ends(mask)
    inside = mask & ~(closing & ~starts)
    before = torch.cat([torch.zeros_like(ends[:, :1]), ends[:, :-1]], 1)
    opens = inside & (starts | before)
    return torch.where(inside, opens.cumsum(1) - 1, -1)


@dataclass(frozen=True, kw_only=True)
class EntropyCutoff:
    """A segment ends where the start model does not know how to go on: the next token surprises, and opens a new unit."""

    reads_entropy: ClassVar[bool] = True

    cutoff: float = 2.0
    """Entropy of the next-token distribution, nats, above which (strictly) a segment ends; 0: every token; above every entropy: one segment.

    The authors' 2.0 is for Llama, 1.75 for Phi-3.
    """

    def __post_init__(self) -> None:
        if not self.cutoff >= 0:
            raise UsageError(f"cutoff is an entropy in nats and must not be negative, got {self.cutoff}")

    def __call__(self, entropy: Values, mask: Mask) -> Ids:
        """Segment ids; `entropy` is of the distribution after the token was read."""
        return ids_of_ends(torch.where(mask, entropy, 0.0) > self.cutoff, mask)


@dataclass(frozen=True, kw_only=True)
class Windows:
    """A fixed number of tokens, whatever the text: the baseline that a segmenter must beat [OURS]."""

    reads_entropy: ClassVar[bool] = False

    size: int = 16
    """Tokens."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"size counts tokens and must be at least 1, got {self.size}")

    def __call__(self, entropy: Values, mask: Mask) -> Ids:
        """Segment ids; the entropy is not looked at."""
        return ids_of_ends(mask & (place_in_turn(mask) % self.size == self.size - 1), mask)


Segmenter = EntropyCutoff | Windows
