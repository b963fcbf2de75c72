"""What a row has besides its texts: numbers, labels, ratings, lists."""

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from finegrain.data.reading import Reading
from finegrain.errors import DataError

SHOWN = 12
"""Number of columns that a message names."""


def list_names(names: Iterable[str]) -> str:
    """Names of columns on one line; long lists and names are cut."""
    names = list(names)
    shown = ", ".join(name if name.isprintable() and len(name) <= 60 else f"{name!r:.60}" for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def read_text(row: Mapping[str, Any], column: str) -> str:
    """A column that must be text."""
    if column not in row:
        raise DataError(f"missing column {column}; found: {list_names(row)}")
    if not isinstance(row[column], str):
        raise DataError(f"column {column!r}: expected text, found {type(row[column]).__name__}")
    value: str = row[column]
    return value


def read_numeric_columns(row: Reading) -> dict[str, float]:
    """Every column that is a number or a boolean; NaN is kept and checked later."""
    return {name: to_float(value) for name, value in row.numbers().items()}


def to_float(value: Any) -> float:
    """A number from a file; a number too large for a float is infinite, and checked later."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def read_label(row: Mapping[str, Any], column: str = "label") -> float:
    """The label of an unpaired row: 0, 1, false, true, or NaN, which is checked later."""
    value = row.get(column)
    if not isinstance(value, Real) or (value == value and value not in (0, 1)):
        raise DataError(f"column {column!r}: expected 0, 1, false or true, found {value!r:.80}")
    return float(value)


def read_number(row: Mapping[str, Any], column: str) -> float:
    """A column that must be a number; NaN is kept and checked later."""
    value = row.get(column)
    if not isinstance(value, Real):
        raise DataError(f"column {column!r}: expected a number, found {value!r:.80}")
    return to_float(value)


def read_choice(row: Mapping[str, Any], column: str) -> int:
    """A column that must be 0 or 1."""
    value = row.get(column)
    if not isinstance(value, Real) or value not in (0, 1):
        raise DataError(f"column {column!r}: expected 0 or 1, found {value!r:.80}")
    return int(to_float(value))


def read_list(row: Mapping[str, Any], column: str, kind: type) -> list[Any]:
    """A column that must be a list of things of one type."""
    value = row.get(column)
    if not isinstance(value, list | tuple) or not all(isinstance(item, kind) for item in value):
        raise DataError(f"column {column!r}: expected a list of {kind.__name__}, found {value!r:.80}")
    return list(value)


def read_rating(value: Any, name: str) -> float:
    """A rating given as a number or as text; NaN where there is none ("N/A", null), which is checked later."""
    if value is None or value == "N/A":
        return math.nan
    try:
        return to_float(value)
    except (TypeError, ValueError):
        raise DataError(f"rating {name!r}: expected a number, found {value!r:.80}") from None
