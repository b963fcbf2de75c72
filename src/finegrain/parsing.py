"""A command line -> the settings object of its command. The only file that knows the argument parser.

Later sources win: defaults of the settings class, the file of `--config`, selectors (objective:dpo), flags.
"""

import ast
import functools
import inspect
import io
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import MISSING, Field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from finegrain import catalog, configure, settings_file
from finegrain.commands import COMMANDS, Command, resolve, sub_commands
from finegrain.errors import UsageError
from finegrain.terminal import make_visible, write_line

UNPREFIXED = ("common", "training")
"""Fields whose own fields have no prefix on the command line: --max-steps, not --common.max-steps."""


def parse_settings(name: str, arguments: list[str]) -> Any:
    """The settings object of the command `name`."""
    command = COMMANDS[name]
    settings_class = resolve(command.settings)
    _check_not_empty(arguments)
    yes, arguments = "--yes" in arguments, [argument for argument in arguments if argument != "--yes"]
    config, arguments = _take(arguments, "--config")
    of_a_run, data = settings_file.read_settings(Path(config)) if config else (False, {})
    base = configure.settings_from_file(settings_class, data, str(config)) if config else {}
    settings_file.ask_for_foreign_code(str(config), base, arguments, yes=yes, of_a_run=of_a_run)
    own_choices = configure.list_choice_fields(settings_class)
    selectors, flags = configure.split_arguments(arguments, (*configure.FAMILIES, *own_choices))
    own = [selector for selector in selectors if configure.get_family(selector) in own_choices]
    base = {**base, **_choose_fields(settings_class, base, own)}
    methods = _choose_methods(name, command, base, [selector for selector in selectors if selector not in own], str(config))
    return _parse_flags(name, settings_class, {**base, **methods}, flags)


def _check_not_empty(arguments: list[str]) -> None:
    """No name is empty: `--out "$RUN"` of a variable that is not set would be the folder at hand."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument == "" or (argument.startswith("--") and argument.endswith("=")):
            raise UsageError(f"{argument[:-1] or before or 'the first argument'} is empty")


def _take(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of a flag, as `--flag VALUE` or `--flag=VALUE`, and the other arguments."""
    places = [place for place, argument in enumerate(arguments) if argument == flag or argument.startswith(f"{flag}=")]
    if not places:
        return None, arguments
    if len(places) > 1:
        raise UsageError(f"{flag} is given {len(places)} times; give one file")
    place = places[0]
    if "=" in arguments[place]:
        return arguments[place].partition("=")[2], arguments[:place] + arguments[place + 1 :]
    if place + 1 >= len(arguments):
        raise UsageError(f"{flag} needs a file")
    return arguments[place + 1], arguments[:place] + arguments[place + 2 :]


def _choose_fields(settings_class: type[Any], base: Mapping[str, Any], selectors: list[str]) -> dict[str, Any]:
    """Fields of the command itself that selectors choose: segmenter:tokens, then segmenter.score:mean."""
    made = {field.name: field.default_factory for field in fields(settings_class) if field.default_factory is not MISSING}
    found: dict[str, Any] = {}
    for selector in sorted(selectors, key=lambda text: text.count(".")):
        name = configure.get_family(selector)
        start = found.get(name) or base.get(name) or (made[name]() if name in made else None)
        found[name] = configure.select_field(settings_class, start, selector)
    return found


def _choose_methods(name: str, command: Command, base: Mapping[str, Any], selectors: list[str], config: str) -> dict[str, Any]:
    """By family of the command, the method that selectors, the file or the table of commands name; None where none is wanted."""
    for family, default in command.methods.items():
        if default is not None and family in base and base[family] is None:
            raise UsageError(f"{config}: {family} is empty; name one, or leave it out for {family}:{default}")
    for selector in selectors:
        if configure.get_family(selector) not in command.methods:
            raise UsageError(f"`finegrain {name}` takes no {configure.get_family(selector)}; found {selector}")
    methods = configure.select({family: base.get(family) for family in command.methods}, selectors)
    missing = {family: default for family, default in command.methods.items() if methods[family] is None and default is not None}
    return methods | {family: catalog.load(family, default)() for family, default in missing.items()}


def _join_repeated(settings_class: Any, flags: list[str]) -> list[str]:
    """`--reward A --reward B` as `--reward A B`: of a field that holds several values the parser would keep the last flag's alone."""
    hints = typing.get_type_hints(settings_class)
    several = {f"--{name.replace('_', '-')}" for name, hint in hints.items() if typing.get_origin(hint) is tuple}
    found: list[list[str]] = [[]]
    for flag in flags:
        head, equals, value = flag.partition("=")
        head = head.replace("_", "-") if head.startswith("--") else head
        own = next((part for part in found if part[:1] == [head]), None) if head in several else None
        if own is not None:
            found = [part for part in found if part is not own] + [own]
            own += [value] if equals else []
        elif head in several:
            found.append([head, *([value] if equals else [])])
        elif flag.startswith("--"):
            found.append([flag])
        else:
            found[-1].append(flag)
    return [flag for part in found for flag in part]


def _parse_flags(name: str, settings_class: Any, base: Mapping[str, Any], flags: list[str]) -> Any:
    """The settings object of flags over what was chosen before them, field by field."""
    methods = COMMANDS[name].methods
    found = {field.name: base.get(field.name, _default(field)) for field in _in_order(settings_class)}
    defaults = {field: value for field, value in found.items() if field not in methods or value is not None}
    chosen = tuple((field, type(value)) for field, value in defaults.items() if field in methods)
    parsed_class = _declare(name, settings_class, chosen)
    parsed = _call_parser(
        name,
        parsed_class(**defaults),
        "\n\n".join([str(settings_class.__doc__), *_epilogue(name, settings_class)]),
        _join_repeated(settings_class, flags),
    )
    return settings_class(**{field: getattr(parsed, field) for field in defaults})


@functools.cache
def _declare(name: str, settings_class: Any, methods: tuple[tuple[str, type[Any]], ...]) -> type[Any]:
    """The settings class with the types of the chosen methods, as the argument parser reads it."""
    command, chosen, declared = COMMANDS[name], dict(methods), []
    hints, helps = typing.get_type_hints(settings_class), _field_docs(settings_class)
    for field in _in_order(settings_class):
        if field.name in command.methods and field.name not in chosen:
            continue
        hint = chosen.get(field.name, hints[field.name])
        hint = tyro.conf.Positional[hint] if field.name in command.positional else hint  # type: ignore[valid-type,misc]
        argument = tyro.conf.arg(name="" if field.name in UNPREFIXED else None, help=helps.get(field.name))
        declared.append((field.name, Annotated[hint, argument]))
    parsed_class = make_dataclass(settings_class.__name__, declared, frozen=True, kw_only=True)
    parsed_class.__module__ = "builtins"  # it has no source, which the parser would look for once a field
    return parsed_class


def _in_order(settings_class: type[Any]) -> list[Field[Any]]:
    """Fields in the order of the help: required ones, the command's own, those that it shares with other commands."""
    inherited = {name for base in settings_class.__mro__[1:] if is_dataclass(base) for name in (field.name for field in fields(base))}
    return sorted(fields(settings_class), key=lambda field: (_default(field) is not tyro.MISSING, field.name in inherited))


def _default(field: Field[Any]) -> Any:
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    return tyro.MISSING if value is MISSING else value


def _field_docs(settings_class: type[Any]) -> dict[str, str]:
    """Docstrings below the fields of a dataclass and of those that it inherits from."""
    found = {}
    for base in filter(is_dataclass, reversed(settings_class.__mro__)):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            match field, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                    found[name] = str(text)
    return found


def _epilogue(name: str, settings_class: type[Any]) -> Iterator[str]:
    """Below the sentence of a command: what its selectors may name, and its sub-commands."""
    for family in COMMANDS[name].methods:
        yield f"{family}:NAME one of {', '.join(catalog.names(family))}"
    for field in configure.list_choice_fields(settings_class):
        yield f"{field}:NAME one of {', '.join(configure.list_choices(settings_class, field))}"
    for full, summary in sub_commands(name).items():
        yield f"finegrain {full}: {summary}"


def _call_parser(name: str, default: Any, description: str, flags: list[str]) -> Any:
    """What the argument parser makes of flags; its messages repeat them, so that they are made safe to look at first."""
    shown = io.StringIO() if any(make_visible(flag) != flag for flag in flags) else sys.stderr
    try:
        with redirect_stderr(shown):
            return tyro.cli(
                type(default), prog=f"finegrain {name}", args=flags, default=default, config=(tyro.conf.AvoidSubcommands,), description=description
            )
    finally:
        if isinstance(shown, io.StringIO) and shown.getvalue():
            write_line(shown.getvalue().rstrip())
