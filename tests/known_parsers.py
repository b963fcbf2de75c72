"""What the parser of commands finds out about settings is found out once: one process of tests parses hundreds of command lines."""

from dataclasses import fields, is_dataclass
from functools import cache, wraps
from typing import Any, get_args, get_type_hints

from tyro import _docstrings
from tyro._parsers import ParserSpecification

_KNOWN: dict[Any, tuple[Any, Any, Any]] = {}
"""Parsers by what they were made from, which is kept with them, so that no other object takes its place in memory."""


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
        key = (_declaration(f), repr(default), *(value for name, value in asked.items() if name not in ("parent_classes", "default_instance")))
        if key not in _KNOWN or _values(_KNOWN[key][1]) != _values(default):
            _KNOWN[key] = make(f, **named), default, f
        return _KNOWN[key][0]

    ParserSpecification.from_callable_or_type = staticmethod(make_once)


def _declaration(kind: Any) -> Any:
    """A class, or the fields of one that was made for a single command line."""
    made, *notes = get_args(kind) or (kind,)
    own = getattr(made, "__module__", "") == "builtins" and is_dataclass(made)
    return (made.__name__, repr(get_type_hints(made, include_extras=True)), *notes) if own else kind


def _values(default: Any) -> Any:
    return [getattr(default, field.name) for field in fields(default)] if is_dataclass(default) else default
