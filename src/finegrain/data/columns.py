"""What a row has besides its texts: numbers, labels, character spans, token rewards."""

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from finegrain.data.answer_text import shift_spans
from finegrain.data.reading import Reading
from finegrain.data.records import Answer, Text
from finegrain.data.source_rows import CellError
from finegrain.errors import DataError
from finegrain.types import CharSpan

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
    return {name: _float(value) for name, value in row.numbers().items()}


def _float(value: Any) -> float:
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


def read_answer(row: Mapping[str, Any], prefix: str, content: Text, role: str) -> Answer:
    """An answer with the columns `<prefix>_spans` (or `spans`), `<role>_token_reward` and `<role>_parse`."""
    spans, rewards, parse = f"{prefix}_spans" if prefix else "spans", f"{role}_token_reward", row.get(f"{role}_parse") or ""
    if not isinstance(parse, str):
        raise DataError(f"column '{role}_parse': expected a bracketed parse as text, found {parse!r:.80}")
    marked = shift_spans(_spans(row.get(spans), spans), content)
    return Answer(content=content, spans=marked, token_reward=_rewards(row.get(rewards), rewards), parse=parse)


def _spans(value: Any, column: str) -> list[CharSpan] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise DataError(f"column {column!r}: expected a list of spans, found {type(value).__name__}")
    return [_span(item, column) for item in value]


def _span(item: Any, column: str) -> CharSpan:
    try:
        start, end, number = (item["start"], item["end"], item["value"]) if isinstance(item, dict) else item
        if isinstance(start, Real) and isinstance(end, Real):
            first, last = _float(start), _float(end)
            if not (math.isfinite(first) and math.isfinite(last)):
                raise CellError("not_a_number", f"column {column!r}: a span from {first} to {last}")
            if first.is_integer() and last.is_integer():
                return int(first), int(last), _float(number)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CellError):
            raise
    raise DataError(f"column {column!r}: expected {{start, end, value}} or [start, end, value] with whole start and end, found {item!r:.80}")


def _rewards(value: Any, column: str) -> list[float] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(number, Real) for number in value):
        raise DataError(f"column {column!r}: expected a list of numbers, one per token")
    return [_float(number) for number in value]


def read_number(row: Mapping[str, Any], column: str) -> float:
    """A column that must be a number; NaN is kept and checked later."""
    value = row.get(column)
    if not isinstance(value, Real):
        raise DataError(f"column {column!r}: expected a number, found {value!r:.80}")
    return _float(value)


def read_choice(row: Mapping[str, Any], column: str) -> int:
    """A column that must be 0 or 1."""
    value = row.get(column)
    if not isinstance(value, Real) or value not in (0, 1):
        raise DataError(f"column {column!r}: expected 0 or 1, found {value!r:.80}")
    return int(_float(value))


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
        return _float(value)
    except (TypeError, ValueError):
        raise DataError(f"rating {name!r}: expected a number, found {value!r:.80}") from None
