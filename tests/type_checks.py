"""Shapes and types of the whole package checked at run time, at a fraction of what jaxtyping's own decorator costs a call.

What jaxtyping wraps twice and binds by hand, beartype checks in one wrapper; only functions whose types name array shapes open a
room for the shapes' letters. Both check the same arguments and the same results. A wrapper is made at the first call, since most
functions of most test files are never called, and takes the place of the code that made it: later calls go straight to the check.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from functools import cache, wraps
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import _array_types as arrays
from jaxtyping._storage import _shape_storage as ROOMS

WHOLE = jaxtyping.jaxtyped
TYPED = beartype(conf=BeartypeConf(violation_type=TypeError))
SLOW = arrays._MetaAbstractArray.__instancecheck__


def install() -> None:
    """Before the package is imported."""
    jaxtyping.install_import_hook("finegrain", "beartype.beartype")
    jaxtyping.jaxtyped = lambda *, typechecker: typed  # what the hook writes above every function and class
    arrays._MetaAbstractArray.__instancecheck__ = fits


def typed(made: Any) -> Any:
    """A function that checks its arguments and its result; a dataclass that checks its fields."""
    if inspect.isclass(made):
        if dataclasses.is_dataclass(made) and not hasattr(made.__init__, "typed"):
            made.__init__ = typed(made.__init__)
            made.__init__.typed = True
        return made
    call = wraps(made)(FunctionType(_first.__code__, globals()))
    call.__kwdefaults__ = {"_made": made, "_call": call}
    return call


def _first(*arguments: Any, _made: Any, _call: Any, **named: Any) -> Any:
    code, constants = _checked(_made)
    _call.__kwdefaults__ = {**_call.__kwdefaults__, **constants}
    _call.__code__ = code
    return _call(*arguments, **named)


def _through(*arguments: Any, _check: Any, **named: Any) -> Any:
    return _check(*arguments, **named)


def _in_a_room(*arguments: Any, _made: Any, _check: Any, **named: Any) -> Any:
    if jaxtyping.config.jaxtyping_disable:
        return _made(*arguments, **named)
    rooms = ROOMS.memo_stack if hasattr(ROOMS, "memo_stack") else ROOMS.__dict__.setdefault("memo_stack", [])
    rooms.append(({}, {}, {}, {}))
    try:
        return _check(*arguments, **named)
    finally:
        rooms.pop()


def _returned(made: Callable[..., Any]) -> Callable[..., Any]:
    """A generator function as one that returns an iterator, whose arguments are checked when it is called."""
    return wraps(made)(lambda *arguments, **named: made(*arguments, **named))


def _checked(made: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
    """The code of a checked function, and the constants that it reads."""
    hints = inspect.get_annotations(made)
    if any(map(_unread, hints.values())):
        try:
            made.__annotations__ = hints = typing.get_type_hints(made, include_extras=True)
        except (NameError, TypeError):  # what only the type checker imports or indexes
            hints = {}
    if not hints and inspect.get_annotations(made):
        return _through.__code__, {"_check": WHOLE(made, typechecker=beartype)}
    check = TYPED(_returned(made) if inspect.isgeneratorfunction(made) else made)
    if any(map(_has_shapes, hints.values())):
        return _in_a_room.__code__, {"_check": check}
    if check.__closure__ or check.__globals__ is made.__globals__:  # nothing to check, or nothing that can be moved
        return _through.__code__, {"_check": check}
    return check.__code__, check.__kwdefaults__ or {}


def _parts(hint: Any) -> list[Any]:
    return [*hint] if isinstance(hint, list) else [*typing.get_args(hint)]


def _has_shapes(hint: Any) -> bool:
    parts = _parts(hint)
    return any(map(_has_shapes, parts)) if parts else inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)


def _unread(hint: Any) -> bool:
    """Whether a type is named by a string."""
    words = isinstance(hint, (str, typing.ForwardRef)) and typing.get_origin(hint) is not typing.Literal
    return words or (typing.get_origin(hint) is not typing.Literal and any(map(_unread, _parts(hint))))


def fits(hint: Any, value: Any) -> bool:
    """Whether an array has the kind, dtype and shape of a hint, as jaxtyping finds it; what a hint asks is read once."""
    kind, dtypes, letters = _plan(hint)
    if letters is None:
        return bool(SLOW(hint, value))
    if not isinstance(value, kind):
        return False
    dtype, shape = value.dtype, value.shape
    known_dtype = dtypes.get(dtype)
    if known_dtype is None:
        known_dtype = dtypes[dtype] = SLOW(hint.dtype[kind, "..."], value)
    if not known_dtype or len(shape) != len(letters):
        return False
    try:
        sizes = ROOMS.memo_stack[-1][0]
    except (AttributeError, IndexError):
        sizes = {}
    before = len(sizes)
    for letter, size in zip(letters, shape):  # noqa: B905
        if (sizes.setdefault(letter, size) if letter.__class__ is str else letter) != size and letter is not None:
            while len(sizes) > before:
                sizes.popitem()
            return False
    return True


@cache
def _plan(hint: Any) -> tuple[Any, dict[Any, bool], list[str | int | None] | None]:
    """Kind, dtypes met so far, and for each dimension its letter, its size or None for any; None in all where jaxtyping is to look."""
    letters: list[str | int | None] = []
    for dim in hint.dims if hint.array_type is not Any and hint.index_variadic is None and not hint._skip_instancecheck else [...]:
        if type(dim) is arrays._NamedDim and not dim.broadcastable and not dim.treepath:
            letters.append(dim.name)
        elif type(dim) is arrays._FixedDim and not dim.broadcastable:
            letters.append(dim.size)
        elif dim is arrays._anonymous_dim:
            letters.append(None)
        else:
            return None, {}, None
    return hint.array_type, {}, letters
