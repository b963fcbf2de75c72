"""The one table of methods: name, family, settings class, source. Strings only, so that listing it is instant.

A method's page is `docs/methods/<name>.md`, its test `tests/<family>/test_<file>.py`.
"""

import importlib
from typing import Any, NamedTuple

from finegrain.errors import unknown_name


class Method(NamedTuple):
    """One row of the table."""

    name: str
    family: str
    """objective or credit: the word before the colon on the command line."""
    target: str
    """`module:Class` below `finegrain`."""
    summary: str
    source: str
    """Link to the paper, or "ours" with the page that explains it."""


METHODS: tuple[Method, ...] = (
    Method("dpo", "objective", "objectives.dpo:DPO", "logistic loss on the difference of log-ratios", "https://arxiv.org/abs/2305.18290"),
)


def names(family: str) -> list[str]:
    """Names of one family, in table order."""
    return [method.name for method in METHODS if method.family == family]


def find(family: str, name: str) -> Method:
    """The row of a name; an unknown name raises with the near ones."""
    for method in METHODS:
        if (method.family, method.name) == (family, name):
            return method
    raise unknown_name(family, name, names(family))


def load(family: str, name: str) -> type[Any]:
    """The settings class of a name."""
    module, _, attribute = find(family, name).target.partition(":")
    settings: type[Any] = getattr(importlib.import_module(f"finegrain.{module}"), attribute)
    return settings


def name_of(settings: object) -> str:
    """The table's name of a settings object."""
    target = f"{type(settings).__module__.removeprefix('finegrain.')}:{type(settings).__qualname__}"
    for method in METHODS:
        if method.target == target:
            return method.name
    raise KeyError(f"{target} is not in the catalog")
