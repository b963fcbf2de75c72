"""What a method declares: the only place that reads attributes of a method by name.

Each family has one typed record (`train.contract.Contract`, `rewards.declarations.HeadDeclarations` and `LossDeclarations`,
`credit.declarations.CreditDeclarations`); the names of its fields are the names a method may declare. Whatever else a method's class
shows in public stops here with the names that are near, so that a misspelt declaration never trains on the defaults. Settings are
fields of a dataclass or attributes of the instance, but a field with the letters of a declaration (`learningrate`) stops too; helpers begin
with an underscore.
"""

import functools
import sys
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from types import FunctionType, MemberDescriptorType
from typing import Any

from finegrain.errors import UsageError, unknown_name

FOREIGN = frozenset(sys.stdlib_module_names) - {"__main__"} | {"torch"}
"""Packages whose classes a method may inherit from, whatever they show."""


def read_declarations(method: Any, record: Any, kind: str) -> dict[str, Any]:
    """The declarations of a method by name, those it leaves out left out; raises UsageError for a name that is none.

    `record`: a dataclass whose fields are the declarations; one without a default must be there, but for the field `kind`, the method itself.
    `kind`: "objective", "head", "loss" or "credit", for messages.
    """
    declared, required = _names(record, kind)
    own: Any = type(method)
    plain = isinstance(method, FunctionType)
    name = method.__name__ if plain else own.__name__
    for one in sorted((_public(vars(method)) if plain else _shown(own) | _misspelt(own, declared)) - declared):
        unknown = unknown_name(f"{kind} declaration", one, declared)
        raise UsageError(f"{name}: {unknown}; a setting is a field of a dataclass, and a helper's name begins with an underscore")
    found = {one: value for one in declared - _inherited(own) if (value := getattr(method, one, MISSING)) is not MISSING}
    for one in sorted(required - found.keys()):
        raise UsageError(f"{name} declares no {one}, which every {kind} has")
    return found


@functools.cache
def _names(record: Any, kind: str) -> tuple[frozenset[str], frozenset[str]]:
    """What may be declared, and what must be."""
    own = [field for field in fields(record) if field.name != kind]
    required = [field.name for field in own if field.default is MISSING and field.default_factory is MISSING]
    return frozenset(field.name for field in own), frozenset(required)


@functools.cache
def _shown(cls: Any) -> frozenset[str]:
    """Public names that a class and its bases define; not settings, and not what a class of another package has."""
    found: set[str] = set()
    allowed = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    for base in cls.__mro__:
        if _is_foreign(base):
            allowed |= _public(vars(base))
        found |= {name for name in _public(vars(base)) if not isinstance(vars(base)[name], MemberDescriptorType)}
        allowed |= set(vars(base).get("_fields", ()))
    return frozenset(found - allowed)


@functools.cache
def _misspelt(cls: Any, declared: frozenset[str]) -> frozenset[str]:
    """Settings of a dataclass with the letters of a declaration, such as `learningrate` and `laerning_rate`."""
    known = {_letters(name) for name in declared}
    return frozenset(field.name for field in (fields(cls) if is_dataclass(cls) else ()) if _letters(field.name) in known)


def _letters(name: str) -> str:
    return "".join(sorted(name.replace("_", "").lower()))


@functools.cache
def _inherited(cls: Any) -> frozenset[str]:
    """Public names that a class has from another package, e.g. `modules` of a `torch.nn.Module`."""
    own, foreign = ([name for base in cls.__mro__ if _is_foreign(base) is there for name in _public(vars(base))] for there in (False, True))
    return frozenset(foreign) - frozenset(own)


def _is_foreign(base: Any) -> bool:
    return base.__module__.partition(".")[0] in FOREIGN


def _public(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if not name.startswith("_"))
