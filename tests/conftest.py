"""Every test runs with shapes and types checked at run time, and with a fixed seed."""

import dataclasses
from functools import cache
from types import FunctionType
from typing import Any, get_args

import jaxtyping
import pytest
import torch
import tyro._docstrings
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

SHAPED = jaxtyping.jaxtyped
TYPED = beartype(conf=BeartypeConf(violation_type=TypeError))


def names_shapes(hint: Any) -> bool:
    """Whether an annotation says the shape of an array, or is text that would have to be looked up."""
    if isinstance(hint, (str, list)):
        return isinstance(hint, str) or any(names_shapes(part) for part in hint)
    shaped = isinstance(hint, type) and not get_args(hint) and issubclass(hint, jaxtyping.AbstractArray)
    return shaped or any(names_shapes(part) for part in get_args(hint))


def without_shapes(thing: Any) -> bool:
    """Whether a function's annotations speak of types alone."""
    return isinstance(thing, FunctionType) and not any(names_shapes(hint) for hint in thing.__annotations__.values())


def checked(thing: Any = None, *, typechecker: Any) -> Any:
    """What the hook puts on every function and class; its check of shapes is slow, so types alone go straight to beartype."""
    if thing is None:
        return lambda thing: checked(thing, typechecker=typechecker)
    if without_shapes(thing):
        return TYPED(thing)
    if isinstance(thing, type) and dataclasses.is_dataclass(thing) and without_shapes(thing.__init__):
        thing.__init__ = TYPED(thing.__init__)
        return thing
    return SHAPED(thing, typechecker=typechecker)


jaxtyping.jaxtyped = checked
# The parser of commands tokenises the classes of its settings for every command; their source does not change here.
tyro._docstrings._ClassTokenization.make = staticmethod(cache(tyro._docstrings._ClassTokenization.make))
install_import_hook("finegrain", "beartype.beartype")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
