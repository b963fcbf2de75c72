"""Settings that check themselves: every value has its field's type and range, wherever the object is made.

A range is declared in the type of its field, `beta: PositiveFloat = 0.1`, and read in two places only: here, when an object is
made (from the command line, a file or Python), and in `configure`, which names the place in a file. No range contains NaN or infinity.
"""

import functools
import math
import numbers
import os
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar

from finegrain.errors import UsageError, unknown_name

Settings = TypeVar("Settings")
PLAIN = (str, bytes, int, float, list, tuple, Mapping)
"""Types that are never a method or a choice."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, including the ends unless they are open."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        return above and (value < self.high if self.high_open else value <= self.high)

    def __str__(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return ""
        if math.isinf(self.high):
            return f" above {self.low:g}" if self.low_open else f" of at least {self.low:g}"
        return f" in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"


ANY = Range()
MOST = float(2**31 - 1)
"""The largest count: the maximum that every library used can represent."""

COUNTABLE = Range(-MOST, MOST)

PositiveFloat = Annotated[float, Range(0.0, low_open=True)]
NonNegativeFloat = Annotated[float, Range(0.0)]
Share = Annotated[float, Range(0.0, 1.0)]
ShareBelowOne = Annotated[float, Range(0.0, 1.0, high_open=True)]
PositiveInt = Annotated[int, Range(1.0, MOST)]
NonNegativeInt = Annotated[int, Range(0.0, MOST)]
SequenceLength = Annotated[int, Range(2.0, MOST)]
"""Tokens of a row: at least one of the prompt and one of the answer."""
Seed = Annotated[int, Range(0.0, MOST)]
Epochs = Annotated[float, Range(0.0, 1e6, low_open=True)]
"""Number of passes over the rows; the bound keeps the number of steps countable."""


def checked(settings: type[Settings]) -> type[Settings]:
    """Class decorator, below `@dataclass`: checks the fields before the `__post_init__` of the class, its own or inherited, compares them."""
    own = getattr(settings, "__post_init__", None)

    def __post_init__(self: Any) -> None:
        check_fields(self)
        if own is not None:
            own(self)

    settings.__post_init__ = __post_init__  # type: ignore[attr-defined]
    return settings


def check_fields(settings: Any) -> None:
    """Checks that every field has its declared type, and a number its range."""
    kind: Any = type(settings)
    hints = field_hints(kind)
    for field in fields(settings):
        check_value(field.name, hints[field.name], getattr(settings, field.name), f" (a setting of {kind.__name__})")


@functools.cache
def field_hints(settings: Any) -> dict[str, Any]:
    """The declared types by field, ranges included."""
    return typing.get_type_hints(settings, include_extras=True)


def check_value(name: str, hint: Any, value: Any, place: str = "") -> None:
    """Stops with an error on a value that no member of the type allows."""
    allowed = list(list_alternatives(hint))
    if any(_fits(member, value) for member in allowed):
        return
    words = [str(word) for member in allowed for word in typing.get_args(member) if typing.get_origin(member) is Literal]
    if words and isinstance(value, str):
        raise unknown_name(f"value of {name}{place}", value, words)
    raise UsageError(f"{name} must be {_expected(allowed)}, got {reprlib.repr(value)}{place}")


def list_alternatives(hint: Any) -> Iterator[Any]:
    """The alternatives of a type; a type that is not a union has itself as the only one."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        for member in typing.get_args(hint):
            yield from list_alternatives(member)
    else:
        yield hint


def plain_type(hint: Any) -> tuple[Any, Range]:
    """A type without its range, and the range."""
    if typing.get_origin(hint) is not Annotated:
        return hint, ANY
    inner, *notes = typing.get_args(hint)
    return inner, next((note for note in notes if isinstance(note, Range)), ANY)


def _fits(member: Any, value: Any) -> bool:
    kind, allowed = plain_type(member)
    origin = typing.get_origin(kind)
    if kind is type(None):
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return _number(value, numbers.Integral) in (allowed if allowed is not ANY else COUNTABLE)
    if kind is float:
        return _number(value, numbers.Real) in allowed
    if kind is str:
        return isinstance(value, str)
    if isinstance(kind, type) and issubclass(kind, os.PathLike):
        return isinstance(value, os.PathLike)
    if origin is Literal:
        return any(value == word and type(value) is type(word) for word in typing.get_args(kind))
    if origin in (tuple, list, Sequence):
        return isinstance(value, (tuple, list)) and _items_fit(kind, origin, value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(_fits_any(typing.get_args(kind)[1], item) for item in value.values())
    if isinstance(kind, type) and is_dataclass(kind):
        return value is not None and not isinstance(value, PLAIN)
    return True  # a callable or a protocol: checked by the method that takes it


def _number(value: Any, kind: type) -> float:
    """The value as a number; NaN, which no range contains, for anything that is not a finite number of this kind."""
    if isinstance(value, bool) or not isinstance(value, kind):
        return math.nan
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:  # a whole number above 1e308
        return math.nan
    return number if math.isfinite(number) else math.nan


def _fits_any(hint: Any, value: Any) -> bool:
    return any(_fits(member, value) for member in list_alternatives(hint))


def _items_fit(kind: Any, origin: Any, value: Sequence[Any]) -> bool:
    inner = typing.get_args(kind)
    if origin is not tuple or inner[-1] is Ellipsis:
        return all(_fits_any(inner[0], item) for item in value)
    return len(value) == len(inner) and all(_fits_any(hint, item) for hint, item in zip(inner, value, strict=True))


def _expected(allowed: Sequence[Any]) -> str:
    return " or ".join(dict.fromkeys(_in_words(member) for member in allowed))


def _in_words(member: Any) -> str:
    kind, allowed = plain_type(member)
    origin = typing.get_origin(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if origin in (tuple, list, Sequence):
        inner = [word for word in typing.get_args(kind) if word is not Ellipsis]
        return f"a list of {_expected([part for hint in dict.fromkeys(inner) for part in list_alternatives(hint)])}"
    if origin in (dict, Mapping):
        return "names and values"
    if isinstance(kind, type) and is_dataclass(kind):
        return f"a {kind.__name__}"
    named = {type(None): "nothing", bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    return f"{named.get(kind, 'a path')}{allowed if allowed.high != MOST else Range(allowed.low)}"
