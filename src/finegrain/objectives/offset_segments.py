"""Which tokens of an answer make the segment that an objective compares: all of them, or those from a character on.

Source: partial segments that start anywhere, Hejna et al. 2023, https://arxiv.org/abs/2310.13639.
Deviations: starts are characters of the answer's text [OURS]; a segment begins at the token that holds the character.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from finegrain.checked import PositiveInt, checked
from finegrain.types import Ragged, Side, TokenColumns

Tokens = Bool[Tensor, "B T"]


@runtime_checkable
class OffsetContext(Protocol):
    """What segments that start at a character ask of the answers before training; everything is one value or array per answer."""

    @property
    def roles(self) -> Sequence[str]:
        """Roles that the loss reads."""

    def masks(self, role: str) -> Ragged:
        """Boolean: the tokens that train."""

    def tokens_at(self, role: str, column: str) -> Sequence[int]:
        """Place of the token that holds the character which a column of numbers names."""

    def note(self, name: str, facts: Mapping[str, int]) -> None:
        """Records facts about the answers for the run."""


@dataclass(frozen=True, kw_only=True)
class WholeAnswer:
    """A segment is the whole answer."""

    columns: ClassVar[tuple[str, ...]] = ()

    def __call__(self, side: Side) -> Tokens:
        """The tokens that train."""
        return side.mask


@dataclass(frozen=True, kw_only=True)
@checked
class FromOffset:
    """A segment starts at the character that the columns `chosen_start` and `rejected_start` give."""

    columns: ClassVar[tuple[str, ...]] = ("chosen_start", "rejected_start")

    length: PositiveInt | None = None
    """Tokens of a segment; by default it ends with its answer."""

    def __call__(self, side: Side) -> Tokens:
        """The tokens that train and lie in the segment."""
        assert side.segment is not None
        return side.mask & (side.segment >= 0)

    def prepare(self, context: OffsetContext) -> dict[str, TokenColumns]:
        """Segment 0 on the tokens of every segment, -1 elsewhere; counts segments without a token in run.json."""
        made = {}
        for role in context.roles:
            cut = [self._cut(mask, first) for mask, first in zip(context.masks(role), context.tokens_at(role, f"{role}_start"), strict=True)]
            empty = sum(not (ids >= 0).any() for ids in cut)
            context.note("offset_segments", {"segments": len(cut), "without_a_token": empty})
            made[role] = TokenColumns.of(segment=cut)
        return made

    def _cut(self, mask: np.ndarray, start: int) -> np.ndarray:
        inside = mask & (np.arange(len(mask)) >= start)
        if self.length is not None:
            inside &= np.cumsum(inside) <= self.length
        return np.where(inside, 0, -1)
