"""A JSON file that is one object and yet many rows: wrapped in an object, or by columns, as pandas and others write tables."""

from collections.abc import Iterable
from typing import Any

from finegrain.data.messages import as_messages
from finegrain.types import Json

WRAPPERS = ("data", "rows", "train", "examples", "records", "items", "instances")
"""Keys under which a whole file stands."""


def table_rows(whole: Json) -> list[Any] | None:
    """The rows of an object that is a table; None where it is a row itself."""
    if isinstance(columns := whole.get("columns"), list) and isinstance(rows := whole.get("data"), list) and _lists_of(rows, len(columns)):
        return [dict(zip(map(str, columns), row, strict=True)) for row in rows]
    for name in WRAPPERS:
        if isinstance(rows := whole.get(name), list) and rows and all(isinstance(row, dict) for row in rows) and as_messages(rows) is None:
            return [row["row"] if isinstance(row.get("row"), dict) else row for row in rows]
    values = list(whole.values())
    if values and all(isinstance(value, list) and value and as_messages(value) is None for value in values):
        return _by_column(whole, range(len(values[0]))) if len({len(value) for value in values}) == 1 else None
    if values and all(isinstance(value, dict) and value and value.keys() == values[0].keys() for value in values):
        if all(name.isdecimal() for name in whole):
            return values
        return _by_column(whole, values[0]) if all(name.isdecimal() for name in values[0]) else None
    return None


def _lists_of(rows: list[Any], length: int) -> bool:
    return bool(rows) and all(isinstance(row, list) and len(row) == length for row in rows)


def _by_column(whole: Json, places: Iterable[Any]) -> list[Json]:
    return [{name: cells[place] for name, cells in whole.items()} for place in places]
