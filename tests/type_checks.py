"""Shapes and types of the whole package checked at run time, at a fraction of what jaxtyping's own decorator costs a call.

What jaxtyping wraps twice and binds by hand, beartype checks in one wrapper; only functions whose types name array shapes open a
room for the shapes' letters. Both check the same arguments and the same results. A check is made at a function's first call, since
most functions of most test files are never called. It sees the first calls of a function in every test (OFTEN of them), then the
function's own code takes its place until the next test.
"""

import dataclasses
import inspect
import typing
import weakref
from collections.abc import Callable
from functools import cache, wraps
from types import FunctionType
from typing import Any, ClassVar

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import _array_types as arrays
from jaxtyping._storage import _shape_storage as ROOMS

WHOLE = jaxtyping.jaxtyped
TYPED = beartype(conf=BeartypeConf(violation_type=TypeError))
SLOW = arrays._MetaAbstractArray.__instancecheck__
OFTEN = 32
"""Calls of one function in one test that are checked."""
_NESTED: dict[int, tuple[Any, bool, Any]] = {}
"""Of a function within a function, by its code: the first one's check, whether it has shapes, and the code, which so stays."""


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
    call = wraps(made)(FunctionType(_ask.__code__, made.__globals__))
    call.__kwdefaults__ = {"_checks": Checks(made, call)}
    return call


def _ask(*arguments: Any, _checks: Any, **named: Any) -> Any:
    _checks.left -= 1
    return (_checks.check if _checks.left > 0 else _checks.take())(*arguments, **named)


def _straight(*arguments: Any, _made: Any, **named: Any) -> Any:
    return _made(*arguments, **named)


class Checks:
    """The check of one function, which steps aside where a test has called it often enough."""

    __slots__ = ("__weakref__", "call", "check", "left", "made")
    called: ClassVar[list[weakref.ref["Checks"]]] = []
    """Of functions that the test has called, those of functions within functions for as long as they live."""
    aside: ClassVar[list["Checks"]] = []
    """Of those that it has called often."""

    def __init__(self, made: Any, call: Any) -> None:
        self.made, self.call, self.check, self.left = made, call, None, 0

    @classmethod
    def begin_test(cls) -> None:
        """All functions are checked again."""
        for called in cls.called:
            if checks := called():
                checks.left = 0
        cls.called.clear()
        for checks in cls.aside:
            checks.call.__kwdefaults__ = {"_checks": checks}
            checks.call.__defaults__ = None
            checks.call.__code__ = _ask.__code__
        cls.aside.clear()

    def take(self) -> Any:
        """What to call at a test's first call of the function, and at the last that is checked."""
        if self.left < 0:
            self.left = OFTEN - 1
            Checks.called.append(weakref.ref(self))
            if self.check is None:
                self.check = _checked(self.made)
        else:
            self.step_aside()
        return self.check

    def step_aside(self) -> None:
        """The function's own code takes the place of the check, where it needs nothing from around it."""
        if self.made.__closure__:
            self.call.__kwdefaults__ = {"_made": self.made}
            self.call.__code__ = _straight.__code__
        else:
            self.call.__defaults__, self.call.__kwdefaults__ = self.made.__defaults__, self.made.__kwdefaults__
            self.call.__code__ = self.made.__code__
        Checks.aside.append(self)


def _in_a_room(check: Any, made: Any) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return made(*arguments, **named)
        try:
            rooms = ROOMS.memo_stack
        except AttributeError:
            rooms = ROOMS.memo_stack = []
        rooms.append(({}, {}, {}, {}))
        try:
            return check(*arguments, **named)
        finally:
            rooms.pop()

    return call


def _returned(made: Callable[..., Any]) -> Callable[..., Any]:
    """A generator function as one that returns an iterator, whose arguments are checked when it is called."""
    return wraps(made)(lambda *arguments, **named: made(*arguments, **named))


def _checked(made: Callable[..., Any]) -> Any:
    """The check of a function; of one that is made anew at every call of another, what was found at the first."""
    if id(made.__code__) in _NESTED:
        first, has_shapes, _ = _NESTED[id(made.__code__)]
        check = FunctionType(first.__code__, first.__globals__, first.__name__, first.__defaults__, first.__closure__)
        check.__kwdefaults__ = {**first.__kwdefaults__, "__beartype_func": made}
        return _in_a_room(check, made) if has_shapes else check
    hints = inspect.get_annotations(made)
    if any(map(_unread, hints.values())):
        try:
            made.__annotations__ = hints = typing.get_type_hints(made, include_extras=True)
        except (NameError, TypeError):  # what only the type checker imports or indexes
            hints = {}
    if not hints and inspect.get_annotations(made):
        return WHOLE(made, typechecker=beartype)
    check = TYPED(_returned(made) if inspect.isgeneratorfunction(made) else made)
    has_shapes = any(map(_has_shapes, hints.values()))
    if "<locals>" in made.__qualname__ and "__beartype_func" in (check.__kwdefaults__ or {}) and not inspect.isgeneratorfunction(made):
        _NESTED[id(made.__code__)] = check, has_shapes, made.__code__
    return _in_a_room(check, made) if has_shapes else check


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
