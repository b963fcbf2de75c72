"""What the parser of commands finds out about settings is found out once: one process of tests parses hundreds of command lines."""

from dataclasses import fields, is_dataclass
from functools import cache, wraps
from typing import Any

from tyro import _docstrings
from tyro._parsers import ParserSpecification

_KNOWN: dict[Any, tuple[Any, Any]] = {}
"""Parsers by what they were made from; the defaults are kept with them, so that no other object takes their place in memory."""


def install() -> None:
    """Before the first command line is parsed."""
    _docstrings._ClassTokenization.make = staticmethod(cache(_docstrings._ClassTokenization.make))
    make = ParserSpecification.from_callable_or_type

    @wraps(make)
    def make_once(f: Any, **named: Any) -> Any:
        if "." in named["intern_prefix"]:
            return make(f, **named)
        if callable(named["description"]):
            named["description"] = named["description"]()
        default, asked = named["default_instance"], {**named, "markers": frozenset(named["markers"])}
        key = (f, repr(default), *(value for name, value in asked.items() if name not in ("parent_classes", "default_instance")))
        if key not in _KNOWN or _values(_KNOWN[key][1]) != _values(default):
            _KNOWN[key] = make(f, **named), default
        return _KNOWN[key][0]

    ParserSpecification.from_callable_or_type = staticmethod(make_once)


def _values(default: Any) -> Any:
    return [getattr(default, field.name) for field in fields(default)] if is_dataclass(default) else default
