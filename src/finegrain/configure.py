"""Settings as names and numbers: choose them by selectors, write them as JSON, read them back through the same constructors.

A selector is `family:name` (objective:dpo, credit:asr) or `path.to.field:choice` (credit.pivots:top-k, or segmenter:tokens
where the command itself has such a field), where a choice is a class of the field's union in kebab case. In JSON a method
carries its catalog name under "method", a choice its name under "choice", so that reading back gives the same objects.
"""

import re
import reprlib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from finegrain import catalog, checked
from finegrain.errors import FinegrainError, UsageError, unknown_name

FAMILIES = ("objective", "credit", "head", "loss", "algorithm")


def to_kebab(name: str) -> str:
    """`TopK` -> `top-k`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def split_arguments(arguments: Sequence[str], roots: Sequence[str] = FAMILIES) -> tuple[list[str], list[str]]:
    """(selectors, everything else); selectors may occur anywhere. `roots`: the allowed first words of a selector."""
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


def get_family(selector: str) -> str:
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


def select_field(settings: type, start: Any, selector: str) -> Any:
    """The value of a command's own field, initially `start`, after a selector that begins with the field's name."""
    path, _, name = selector.partition(":")
    field, *steps = path.split(".")
    if steps and start is None:
        raise UsageError(f"{selector}: name the {field} first, e.g. {field}:{next(iter(list_choices(settings, field)))}")
    if steps:
        return _with_choice(start, [step.replace("-", "_") for step in steps], name, selector)
    options = list_choices(settings, field.replace("-", "_"))
    if name not in options:
        raise unknown_name(f"choice for {field}", name, options)
    return options[name]()


def list_choice_fields(settings: type) -> list[str]:
    """Fields of a command that hold one of several classes that their type names; a field for methods of the catalog is of type Any."""
    return [field.name for field in fields(settings) if len(list_choices(settings, field.name)) > 1]


def _takes_methods(settings: type, field_name: str) -> bool:
    """Whether a field is for the methods of a family, and so of type Any; others may have such a name: `Optim.algorithm`, `OnlineSettings.credit`."""
    return field_name in FAMILIES and checked.field_hints(settings)[field_name] is Any


def field_from_json(settings: type, name: str, value: Any, where: str = "") -> Any:
    """One field of a settings class, from the JSON that `to_json` wrote for it or a part of that."""
    return _read(checked.field_hints(settings)[name], name if _takes_methods(settings, name) else "", value, where or name)


def settings_from_file(settings: type, data: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The command's fields that a file sets; an error for the name of an inner field says where it belongs."""
    known = [field.name for field in fields(settings)]
    inner = {name: outer for outer in known for kind in list_choices(settings, outer).values() for name in (field.name for field in fields(kind))}
    for name in map(str, data):
        if name not in known and (short := name.replace("-", "_").rpartition(".")[2]) in inner:
            raise UsageError(f"unknown setting in {file} {name!r}; write it under {inner[short]}: {{{short}: ...}}")
        if name not in known:
            raise unknown_name(f"setting in {file}", name, known)
    return {name: field_from_json(settings, name, value, f"{file}: {name}") for name, value in data.items()}


def _with_choice(settings: Any, steps: Sequence[str], name: str, selector: str) -> Any:
    names = [field.name for field in fields(settings)]
    if steps[0] not in names:
        raise unknown_name(f"setting in {selector}", steps[0], names)
    options = list_choices(type(settings), steps[0])
    inner = getattr(settings, steps[0])
    if len(steps) > 1 and is_dataclass(inner):
        return replace(settings, **{steps[0]: _with_choice(inner, steps[1:], name, selector)})
    if len(steps) > 1:
        why = f"is not chosen yet; choose one of: {', '.join(options)}" if options else f"is a plain value and has no {steps[1]}"
        raise UsageError(f"{selector}: {steps[0]} {why}")
    if not options:
        raise UsageError(f"{selector}: {steps[0]} is a plain value; set it with --{'.'.join(selector.partition(':')[0].split('.'))} VALUE")
    if name not in options:
        raise unknown_name(f"choice for {steps[0]}", name, options)
    return replace(settings, **{steps[0]: options[name]()})


def list_choices(settings: type, field_name: str) -> dict[str, type]:
    """The classes a field may hold, by kebab name; empty for a plain field."""
    return _options(checked.field_hints(settings)[field_name])


def method_name(method: object) -> str:
    """Its name in the catalog, or `module:name` for a user's own callable."""
    own = method if hasattr(method, "__qualname__") else type(method)
    return catalog.get_name(method) or f"{own.__module__}:{own.__qualname__}"


def to_json(settings: Any) -> Any:
    """A settings object as nested dictionaries and plain values."""
    if is_dataclass(settings) and not isinstance(settings, type):
        found: dict[str, Any] = {}
        for field in fields(settings):
            value = getattr(settings, field.name)
            found[field.name] = to_json(value)
            if _takes_methods(type(settings), field.name) and value is not None:
                found[field.name] = {"method": method_name(value), **(found[field.name] if is_dataclass(value) else {})}
            elif is_dataclass(value) and len(list_choices(type(settings), field.name)) > 1:
                found[field.name] = {"choice": to_kebab(type(value).__name__), **found[field.name]}
        return found
    if isinstance(settings, Path):
        return str(settings)
    if isinstance(settings, (list, tuple)):
        return [to_json(value) for value in settings]
    return settings


def from_json(settings: type, data: Mapping[str, Any], where: str = "settings") -> Any:
    """The settings object for the output of `to_json`, or a part of it: missing entries keep their defaults."""
    known = {field.name: field for field in fields(settings)}
    hints = checked.field_hints(settings)
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in known:
            raise unknown_name(f"setting in {where}", str(name), known)
        values[name] = _read(hints[name], name if _takes_methods(settings, name) else "", value, f"{where}.{name}")
    missing = [name for name, field in known.items() if name not in values and field.default is MISSING and field.default_factory is MISSING]
    if missing:
        raise UsageError(f"{where} lacks {', '.join(missing)}")
    try:
        return settings(**values)
    except FinegrainError as error:
        raise type(error)(f"{where}: {error}") from error


def _read(hint: Any, family: str, value: Any, where: str) -> Any:
    """A value from a file, converted to the type of its field."""
    if family and value is not None:
        return _method(family, value, where)
    options = _options(hint)
    if options and (isinstance(value, Mapping) or (isinstance(value, str) and not _takes_text(hint))):
        return _chosen(options, value, where)
    for member in checked.list_alternatives(hint):
        value = _converted(*checked.plain_type(member), value, where)
    checked.check_value(where, hint, value)
    return value


def _method(family: str, value: Any, where: str) -> Any:
    """A method given by its name, or by its settings with the name under "method"."""
    named = {"method": value} if isinstance(value, str) else value
    if not isinstance(named, Mapping) or not isinstance(named.get("method"), str):
        wanted = f"must be the name of a method, or its settings with the name under `method`, got {reprlib.repr(value)}"
        raise UsageError(f"{where} {wanted}; known: {', '.join(catalog.names(family))}")
    return from_json(catalog.load(family, named["method"]), {name: item for name, item in named.items() if name != "method"}, where)


def _chosen(options: Mapping[str, type], value: Any, where: str) -> Any:
    """One of a field's classes, given by its name or by its settings with the name under "choice"; a field of one class needs no name."""
    named = {"choice": value} if isinstance(value, str) else value
    name = named.get("choice", next(iter(options)) if len(options) == 1 else None)
    if not isinstance(name, str):
        raise UsageError(f"{where} must name one of its kinds under `choice`: {', '.join(options)}")
    if name not in options:
        raise unknown_name(f"choice for {where}", name, options)
    return from_json(options[name], {field: item for field, item in named.items() if field != "choice"}, where)


def _options(hint: Any) -> dict[str, type]:
    """The classes among the members of a type, by kebab name."""
    kinds = [checked.plain_type(member)[0] for member in checked.list_alternatives(hint)]
    return {to_kebab(kind.__name__): kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)}


def _takes_text(hint: Any) -> bool:
    return any(checked.plain_type(member)[0] in (str, Path) for member in checked.list_alternatives(hint))


FLOAT_OF_YAML = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""1e-6 is text in YAML 1.1, which requires a point and a sign."""


def _converted(kind: Any, allowed: checked.Range, value: Any, where: str) -> Any:
    """Converts what files cannot represent: paths, tuples, and floats written as whole numbers or as 1e-6."""
    origin = typing.get_origin(kind)
    if kind is Path and isinstance(value, str):
        if not value:
            raise UsageError(f"{where} is empty")
        return Path(value)
    if kind is float and ((isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and FLOAT_OF_YAML.fullmatch(value))):
        try:
            return float(value)
        except OverflowError:
            return value
    if origin in (tuple, Sequence) and isinstance(value, list):
        inner = [word for word in typing.get_args(kind) if word is not Ellipsis]
        each = inner if len(inner) == len(value) else inner[:1] * len(value)
        return tuple(_read(hint, "", item, f"{where}[{place}]") for place, (hint, item) in enumerate(zip(each, value, strict=True)))
    return value
