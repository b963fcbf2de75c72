"""JSON text as rows need it: numbers of any length, repeated keys detected, too deeply nested values replaced cell by cell."""

import json
import math
import re
from typing import Any

from finegrain.data.source_rows import BadCell

DIGITS = 300
"""Longer whole numbers exceed the range of a float."""
TOO_DEEP = BadCell("missing_column", "brackets nested too deeply")
LEVELS = 3
"""Levels at which a too deeply nested value is replaced by itself: a list of rows, a row, its cells."""
BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
BLANK = re.compile(r"[ \t\n\r]*")


class Repeated(dict[str, Any]):
    """An object in which, or in whose nested objects, some keys occur more than once; the last value counts."""

    names: tuple[str, ...] = ()


class _Objects:
    """Builds objects from their keys and values."""

    def __init__(self) -> None:
        self._any = False

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) == len(pairs) and not self._any:
            return found
        names = [name for place, (name, _) in enumerate(pairs) if any(name == other for other, _ in pairs[:place])] if len(found) < len(pairs) else []
        within = [one.names for value in found.values() for one in (value if isinstance(value, list) else (value,)) if isinstance(one, Repeated)]
        if not names and not within:
            return found
        self._any = True
        repeated = Repeated(found)
        repeated.names = tuple(dict.fromkeys([*names, *(name for inner in within for name in inner)]))
        return repeated


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= DIGITS else math.copysign(math.inf, -1 if digits.startswith("-") else 1)


def parse_json(text: str) -> Any:
    """The value; raises ValueError. A cell that is nested too deeply becomes a BadCell."""
    decoder = json.JSONDecoder(object_pairs_hook=_Objects(), parse_int=_whole_number)
    try:
        return decoder.decode(text)
    except RecursionError:
        value, end = _value(decoder, text, _after_blank(text, 0), LEVELS)
        if _after_blank(text, end) != len(text):
            raise json.JSONDecodeError("Extra data", text, end) from None
        return value


def _after_blank(text: str, at: int) -> int:
    blank = BLANK.match(text, at)
    assert blank is not None
    return blank.end()


def _value(decoder: json.JSONDecoder, text: str, at: int, levels: int) -> tuple[Any, int]:
    """A value and the position where it ends."""
    if levels and text[at : at + 1] == "{":
        return _object(decoder, text, at + 1, levels - 1)
    if levels and text[at : at + 1] == "[":
        return _list(decoder, text, at + 1, levels - 1)
    try:
        return decoder.raw_decode(text, at)
    except RecursionError:
        return TOO_DEEP, _end(text, at)


def _object(decoder: json.JSONDecoder, text: str, at: int, levels: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    at = _after_blank(text, at)
    while text[at : at + 1] != "}":
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        name, at = decoder.raw_decode(text, at)
        at = _expected(text, _after_blank(text, at), ":")
        found[name], at = _value(decoder, text, _after_blank(text, at), levels)
        at = _next(text, at, "}")
    return found, at + 1


def _list(decoder: json.JSONDecoder, text: str, at: int, levels: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    at = _after_blank(text, at)
    while text[at : at + 1] != "]":
        value, at = _value(decoder, text, at, levels)
        found.append(value)
        at = _next(text, at, "]")
    return found, at + 1


def _next(text: str, at: int, close: str) -> int:
    """The position of the next item or of the closing bracket."""
    at = _after_blank(text, at)
    return at if text[at : at + 1] == close else _after_blank(text, _expected(text, at, ","))


def _expected(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise json.JSONDecodeError(f"Expecting {sign!r}", text, at)
    return at + 1


def _end(text: str, at: int) -> int:
    """The position where the brackets that open here are closed."""
    depth = 0
    for found in BRACKET.finditer(text, at):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found.group(), 0)
        if depth == 0:
            return found.end()
    raise json.JSONDecodeError("Brackets that are not closed", text, at)
