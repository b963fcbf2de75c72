"""What the parser of commands finds out about settings is found out once: one process of tests parses hundreds of command lines."""

from functools import cache, wraps
from typing import Any

from tyro import _docstrings
from tyro._parsers import ParserSpecification

_KNOWN: dict[Any, Any] = {}
"""Parsers by what they were made from; they hold the defaults, so that no other object takes their places in memory."""


def install() -> None:
    """Before the first command line is parsed."""
    _docstrings._ClassTokenization.make = staticmethod(cache(_docstrings._ClassTokenization.make))
    make = ParserSpecification.from_callable_or_type

    @wraps(make)
    def make_once(f: Any, **named: Any) -> Any:
        if not named["intern_prefix"] or "." in named["intern_prefix"] or callable(named["description"]):
            return make(f, **named)
        asked = {name: value for name, value in named.items() if name not in ("parent_classes", "markers", "default_instance")}
        key = (f, frozenset(named["markers"]), repr(named["default_instance"]), *asked.items())
        if key not in _KNOWN or _KNOWN[key][1] != named["default_instance"]:
            _KNOWN[key] = make(f, **named), named["default_instance"]
        return _KNOWN[key][0]

    ParserSpecification.from_callable_or_type = staticmethod(make_once)
