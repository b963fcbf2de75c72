"""Settings as names and numbers: choose them by selectors, write them as JSON, read them back through the same constructors.

A selector is `family:name` (objective:dpo, credit:asr) or `path.to.field:choice` (credit.pivots:top-k, or segmenter:tokens
where a command has such a field itself), where a choice is a class of the field's union in kebab case. In JSON a method
carries its catalog name under "method", a choice its name under "choice", so that reading back gives the same objects.
"""

import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from finegrain import catalog
from finegrain.errors import UsageError, unknown_name

FAMILIES = ("objective", "credit", "head", "loss")


def kebab(name: str) -> str:
    """`TopK` -> `top-k`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def split_arguments(arguments: Sequence[str], roots: Sequence[str] = FAMILIES) -> tuple[list[str], list[str]]:
    """(selectors, everything else); selectors may stand anywhere. `roots`: what the first word of a selector may be."""
    selectors, rest = [], []
    for place, argument in enumerate(arguments):
        root = re.match(r"^([a-z]+)(\.[a-z_-]+)*:[a-z0-9][a-z0-9-]*$", argument)
        after_flag = place > 0 and arguments[place - 1].startswith("--") and "=" not in arguments[place - 1]
        if root and root[1] in roots:
            selectors.append(argument)
        elif root and not after_flag:
            raise unknown_name("selector", root[1], roots)
        else:
            rest.append(argument)
    return selectors, rest


def family_of(selector: str) -> str:
    """`credit.pivots:top-k` -> `credit`."""
    return selector.partition(":")[0].partition(".")[0]


def select(chosen: Mapping[str, Any], selectors: Sequence[str]) -> dict[str, Any]:
    """The methods by family after applying selectors in order of depth: `credit:asr` before `credit.pivots:top-k`."""
    methods = dict(chosen)
    for selector in sorted(selectors, key=lambda text: text.count(".")):
        path, _, name = selector.partition(":")
        family, *steps = path.split(".")
        if not steps:
            methods[family] = catalog.load(family, name)()
        else:
            if methods.get(family) is None:
                raise UsageError(f"{selector}: name the {family} first, e.g. {family}:{catalog.names(family)[0]}")
            methods[family] = _with_choice(methods[family], [step.replace("-", "_") for step in steps], name, selector)
    return methods


def chosen_field(settings: type, start: Any, selector: str) -> Any:
    """A field of a command's own, `start`, after a selector with its name as root."""
    path, _, name = selector.partition(":")
    field, *steps = path.split(".")
    if steps:
        return _with_choice(start, [step.replace("-", "_") for step in steps], name, selector)
    options = choices(settings, field.replace("-", "_"))
    if name not in options:
        raise unknown_name(f"choice for {field}", name, options)
    return options[name]()


def choice_fields(settings: type) -> list[str]:
    """Fields of a command that hold one of several classes, methods aside."""
    return [field.name for field in fields(settings) if field.name not in FAMILIES and len(choices(settings, field.name)) > 1]


def field_from_json(settings: type, name: str, value: Any) -> Any:
    """One field of a settings class, of what `to_json` wrote of it or of a part of it."""
    return _read(typing.get_type_hints(settings)[name], choices(settings, name), name, value, name)


def _with_choice(settings: Any, steps: Sequence[str], name: str, selector: str) -> Any:
    names = [field.name for field in fields(settings)]
    if steps[0] not in names:
        raise unknown_name(f"setting in {selector}", steps[0], names)
    options = choices(type(settings), steps[0])
    inner = getattr(settings, steps[0])
    if len(steps) > 1 and is_dataclass(inner):
        return replace(settings, **{steps[0]: _with_choice(inner, steps[1:], name, selector)})
    if len(steps) > 1:
        why = f"is not chosen yet; name it first: {', '.join(options)}" if options else f"is a plain value and has no {steps[1]}"
        raise UsageError(f"{selector}: {steps[0]} {why}")
    if not options:
        raise UsageError(f"{selector}: {steps[0]} is a plain value; set it with --{'.'.join(selector.partition(':')[0].split('.'))} VALUE")
    if name not in options:
        raise unknown_name(f"choice for {steps[0]}", name, options)
    return replace(settings, **{steps[0]: options[name]()})


def choices(settings: type, field_name: str) -> dict[str, type]:
    """The classes a field may hold, by kebab name; empty for a plain field."""
    hint = typing.get_type_hints(settings)[field_name]
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else (hint,)
    return {kebab(member.__name__): member for member in members if is_dataclass(member) and isinstance(member, type)}


def method_name(method: object) -> str:
    """Its name in the catalog, or `module:name` for a callable of the user's own."""
    own = method if hasattr(method, "__qualname__") else type(method)
    return catalog.name_of(method) or f"{own.__module__}:{own.__qualname__}"


def to_json(settings: Any) -> Any:
    """Nested dictionaries and plain values of a settings object."""
    if is_dataclass(settings) and not isinstance(settings, type):
        found: dict[str, Any] = {}
        for field in fields(settings):
            value = getattr(settings, field.name)
            found[field.name] = to_json(value)
            if field.name in FAMILIES and value is not None:
                found[field.name] = {"method": method_name(value), **(found[field.name] if is_dataclass(value) else {})}
            elif is_dataclass(value) and len(choices(type(settings), field.name)) > 1:
                found[field.name] = {"choice": kebab(type(value).__name__), **found[field.name]}
        return found
    if isinstance(settings, Path):
        return str(settings)
    if isinstance(settings, (list, tuple)):
        return [to_json(value) for value in settings]
    return settings


def from_json(settings: type, data: Mapping[str, Any], where: str = "settings") -> Any:
    """The settings object of what `to_json` wrote, or of a part of it: what is missing keeps its default."""
    known = {field.name: field for field in fields(settings)}
    hints = typing.get_type_hints(settings)
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in known:
            raise unknown_name(f"setting in {where}", name, known)
        values[name] = _read(hints[name], choices(settings, name), name, value, f"{where}.{name}")
    missing = [name for name, field in known.items() if name not in values and field.default is MISSING and field.default_factory is MISSING]
    if missing:
        raise UsageError(f"{where} lacks {', '.join(missing)}")
    return settings(**values)


def _read(hint: Any, options: Mapping[str, type], name: str, value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        rest = {key: item for key, item in value.items() if key not in ("method", "choice")}
        if name in FAMILIES:
            return from_json(catalog.load(name, value.get("method", "")), rest, where)
        if "choice" in value:
            if value["choice"] not in options:
                raise unknown_name(f"choice for {where}", value["choice"], options)
            return from_json(options[value["choice"]], rest, where)
        if len(options) == 1:
            return from_json(next(iter(options.values())), rest, where)
    if hint is Path or (isinstance(value, str) and Path in typing.get_args(hint)):
        return Path(value)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(value)
    if float in (hint, *typing.get_args(hint)) and isinstance(value, (int, str)) and not isinstance(value, bool):
        return _number(value, where)
    return value


def _number(value: int | str, where: str) -> float:
    """A float that a file spells as a whole number, or as 1e-6, which YAML 1.1 reads as text."""
    try:
        return float(value)
    except ValueError as error:
        raise UsageError(f"{where}: expected a number, got {value!r}") from error
