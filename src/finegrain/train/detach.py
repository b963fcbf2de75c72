"""A pair without its graph, for metrics and tables."""

from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from finegrain.types import Pair, Side


def detached(pair: Pair) -> Pair:
    """The pair with the same values and no gradient."""
    return replace(pair, sides={role: _detached_side(side) for role, side in pair.sides.items()})


def _detached_side(side: Side) -> Side:
    values = {field.name: getattr(side, field.name) for field in fields(side)}
    plain: dict[str, Any] = {name: value.detach() for name, value in values.items() if isinstance(value, Tensor) and value.requires_grad}
    return replace(side, **plain)
