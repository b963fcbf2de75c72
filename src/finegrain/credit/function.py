"""User-defined credit: a function that gives character spans of an answer their weight.

Source: ours (docs/methods/function.md).
Deviations: not from a paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from finegrain.checked import NonNegativeFloat, checked
from finegrain.credit.context import CreditContext
from finegrain.errors import CreditError
from finegrain.ops.segmenters import check
from finegrain.types import TokenColumns, WeightMeaning


@dataclass(frozen=True, kw_only=True)
@checked
class Function:
    """Weights from `fn(prompt, response, role, row)` -> [(start, end, weight)], or None for an answer without credit."""

    weight_means: ClassVar[WeightMeaning] = WeightMeaning.MULTIPLIER

    path: str = ""
    """file.py:name; there is no default function."""
    outside: NonNegativeFloat = 1.0
    """Weight of tokens outside all spans."""

    def prepare(self, context: CreditContext) -> Mapping[str, TokenColumns]:
        """The returned weights, unchanged; no reward, no segments."""
        check(bool(self.path), "credit:function needs your function: --credit.path file.py:name")
        columns = {}
        for role in context.signs:
            weights: list[np.ndarray | None] = []
            values = context.spans_to_tokens(role, context.function_spans(self.path, role), self.outside)
            for row, (value, mask) in enumerate(zip(values, context.masks(role), strict=True)):
                weights.append(None if value is None else np.where(mask, value, 0.0).astype(np.float32))
                if value is not None and not bool((np.isfinite(value[mask]) & (value[mask] >= 0)).all()):
                    raise CreditError(f"{self.path} returned a weight for row {row}, {role}, that is negative or not finite; expected numbers >= 0")
            nothing: list[np.ndarray | None] = [None] * len(weights)
            columns[role] = TokenColumns(weights, nothing, nothing, [weight is not None for weight in weights])
        given = [weight for column in columns.values() for weight in column.weight if weight is not None]
        if not given:
            raise CreditError(f"{self.path} returned None for every answer, so there is no credit")
        if not any(weight.any() for weight in given):
            raise CreditError(f"{self.path} gives every token weight 0, so no token would train")
        return columns
