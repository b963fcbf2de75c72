"""Shapes and types of the whole package checked at run time, at a fraction of what jaxtyping's own decorator costs a call.

What jaxtyping wraps twice and binds by hand, beartype checks in one wrapper; only functions whose types name array shapes open a
room for the shapes' letters. Both check the same arguments and the same results.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from functools import wraps
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

WHOLE = jaxtyping.jaxtyped
TYPED = beartype(conf=BeartypeConf(violation_type=TypeError))


def install() -> None:
    """Before the package is imported."""
    jaxtyping.install_import_hook("finegrain", "beartype.beartype")
    jaxtyping.jaxtyped = lambda *, typechecker: typed  # what the hook writes above every function and class


def typed(made: Any) -> Any:
    """A function that checks its arguments and its result; a dataclass that checks its fields."""
    if inspect.isclass(made):
        if dataclasses.is_dataclass(made) and not hasattr(made.__init__, "typed"):
            made.__init__ = typed(made.__init__)
            made.__init__.typed = True
        return made
    checked: Callable[..., Any] | None = None

    @wraps(made)
    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal checked
        checked = checked or _checked(made)
        return checked(*arguments, **named)

    return call


def _checked(made: Callable[..., Any]) -> Callable[..., Any]:
    """Made at the first call: most functions of most test files are never called."""
    hints = inspect.get_annotations(made)
    if inspect.isgeneratorfunction(made) or any(_unread(hint) for hint in hints.values()):
        return WHOLE(made, typechecker=beartype)
    return _with_shapes(made) if any(_has_shapes(hint) for hint in hints.values()) else TYPED(made)


def _with_shapes(made: Callable[..., Any]) -> Callable[..., Any]:
    checked = TYPED(made)

    def call(*arguments: Any, **named: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return made(*arguments, **named)
        with WHOLE("context"):
            return checked(*arguments, **named)

    return call


def _parts(hint: Any) -> list[Any]:
    return [*hint] if isinstance(hint, list) else [*typing.get_args(hint)]


def _has_shapes(hint: Any) -> bool:
    parts = _parts(hint)
    return any(map(_has_shapes, parts)) if parts else inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)


def _unread(hint: Any) -> bool:
    """Whether a type is named by a string, which jaxtyping reads where it can."""
    words = isinstance(hint, (str, typing.ForwardRef)) and typing.get_origin(hint) is not typing.Literal
    return words or (typing.get_origin(hint) is not typing.Literal and any(map(_unread, _parts(hint))))
