"""Tensors of checkpoints taken block by block in float32, and what every method of merging has.

A block bounds the memory that arithmetic takes beside the stored tensors and the result.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.errors import UsageError

BLOCK = 2**22
"""Elements that are widened at once."""


@runtime_checkable
class MergeMethod(Protocol):
    """One way to make a checkpoint of several."""

    strength: ClassVar[str]
    """The number that an alpha search varies, in words."""
    grid: ClassVar[tuple[float, ...]]
    """Its values that a search tries by default."""
    start: ClassVar[float]
    """Its value at which nothing is merged: the result is the first model, or of task-arithmetic the base."""

    def at(self, value: float) -> "MergeMethod":
        """The method with another strength."""

    def check(self, models: int, *, base: bool) -> None:
        """Stops with an error on a number of models, or on a base, that the method has no use for."""

    def coefficients(self, models: int) -> tuple[float, ...] | None:
        """What each model is multiplied by, then the base where there is one; None where that differs from tensor to tensor."""

    def __call__(self, models: Sequence[Tensor], base: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The merged tensor in `dtype`, computed in float32 or wider."""


def map_blocks(function: Callable[[list[Tensor]], Tensor], tensors: Sequence[Float[Tensor, "*shape"]], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """An element-wise function of tensors of one shape, in `dtype`; it sees flat blocks in float32, or in float64 where a tensor is float64."""
    result = torch.empty(tensors[0].shape, dtype=dtype)
    flat, wide = result.view(-1), arithmetic_of(tensors)
    for place, blocks in zip(range(0, flat.numel(), BLOCK), iterate_blocks(tensors, wide), strict=True):
        flat[place : place + BLOCK] = function(blocks).to(dtype)
    return result


def iterate_blocks(tensors: Sequence[Tensor], wide: torch.dtype) -> Iterator[list[Tensor]]:
    """The same flat block of every tensor, widened, block after block."""
    flat = [one.reshape(-1) for one in tensors]
    for place in range(0, flat[0].numel(), BLOCK):
        yield [one[place : place + BLOCK].to(wide) for one in flat]


def arithmetic_of(tensors: Sequence[Tensor]) -> torch.dtype:
    """float64 where a tensor is float64, float32 otherwise."""
    return torch.float64 if any(one.dtype == torch.float64 for one in tensors) else torch.float32


class Products(NamedTuple):
    """Inner products of two tensors, in float64."""

    first: float
    """Squared norm of the first."""
    second: float
    """Squared norm of the second."""
    both: float
    """Their inner product."""

    def __add__(self, other: object) -> "Products":
        """Of two tensors each, taken as one."""
        assert isinstance(other, Products)
        return Products(self.first + other.first, self.second + other.second, self.both + other.both)

    @property
    def cosine(self) -> float | None:
        """Of the angle between them; None where one of them is zero."""
        size = (self.first * self.second) ** 0.5
        return max(-1.0, min(1.0, self.both / size)) if size > 0 else None


def inner_products(first: Tensor, second: Tensor) -> Products:
    """Squared norms and inner product of two tensors of one shape."""
    found = Products(0.0, 0.0, 0.0)
    for one, other in iterate_blocks([first, second], torch.float64):
        found += Products(float(one @ one), float(other @ other), float(one @ other))
    return found


class Change(NamedTuple):
    """How far weights have moved; sums, so that tensors add up."""

    elements: int
    moved: int
    """Elements that differ."""
    distance: float
    """Squared norm of the difference."""
    size: float
    """Squared norm before."""

    def __add__(self, other: object) -> "Change":
        """Of two tensors taken as one."""
        assert isinstance(other, Change)
        return Change(self.elements + other.elements, self.moved + other.moved, self.distance + other.distance, self.size + other.size)


def measure_change(before: Tensor, after: Tensor) -> Change:
    """How far a tensor has moved, as stored numbers: `before` is taken in the dtype of `after`."""
    found = Change(0, 0, 0.0, 0.0)
    for old, new in iterate_blocks([before, after], arithmetic_of([before, after])):
        old = old.to(after.dtype).to(old.dtype)
        gap = new - old
        found += Change(old.numel(), int(gap.count_nonzero()), float(gap.double() @ gap.double()), float(old.double() @ old.double()))
    return found


def refuse_base(method: str, *, base: bool) -> None:
    """Stops with an error on a base that a method does not read."""
    if base:
        raise UsageError(f"method:{method} reads no --base; name all checkpoints in --model")


def require_base(method: str, *, base: bool, what: str) -> None:
    """Stops with an error where a method lacks its base."""
    if not base:
        raise UsageError(f"method:{method} needs --base, {what}")
