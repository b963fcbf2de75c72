"""argv -> recipe: the only file that knows the argument parser.

Importing this file and answering `--help`, `methods` or a mistyped command loads nothing heavy.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from finegrain import __version__, catalog
from finegrain.commands import COMMANDS, GROUPS, SUMMARIES, Command, recipe, resolve
from finegrain.errors import CheckpointError, FinegrainError, Interrupted, UsageError, unknown_name
from finegrain.terminal import visible, write_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (0, or one of `finegrain.errors`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except SystemExit as stop:  # the argument parser: --help, or what it could not read
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else UsageError.exit_code
    except FinegrainError as error:
        write_line(f"finegrain: {error}")
        return error.exit_code
    except BrokenPipeError:  # the reader of our output went away: nothing to tell it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a disk's, a network's: what it says is for a person, and where in our code it was met is not
        write_line(f"finegrain: {error}")
        return CheckpointError.exit_code
    except Interrupted as error:
        write_line(f"finegrain: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        write_line("finegrain: stopped")
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        print(f"finegrain {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in SUMMARIES:
        raise unknown_name("command", command, SUMMARIES)
    plain: dict[str, Callable[[list[str]], int]] = {"methods": _methods, "again": _again}
    return plain[command](rest) if command in plain else _command(command, rest)


def _usage() -> str:
    width = max(map(len, SUMMARIES))
    lines = []
    for heading, names in GROUPS.items():
        lines += [f"{heading}:", *(f"  finegrain {name:{width}}  {SUMMARIES[name]}" for name in names), ""]
    return "\n".join(
        [
            "finegrain: align language models with reward that says where an answer is good or bad, and how sure that is",
            "",
            *lines,
            "`finegrain COMMAND --help` lists the settings of a command and of the methods named on the line.",
        ]
    )


def _methods(arguments: list[str]) -> int:
    if not arguments:
        width = max(len(method.name) for method in catalog.METHODS)
        for method in catalog.METHODS:
            print(f"{method.family}:{method.name:{width}}  {method.summary}  [{method.source}]")
        return 0
    name = arguments[0].rpartition(":")[2]
    found = [method for method in catalog.METHODS if method.name == name]
    if not found:
        raise unknown_name("method", name, [method.name for method in catalog.METHODS])
    for method in found:
        settings = catalog.load(method.family, method.name)
        module = sys.modules[settings.__module__]
        print(f"{method.family}:{method.name}\n\n{(module.__doc__ or '').strip()}\n\nSettings: {settings()!r}\nPage: docs/methods/{method.name}.md")
    return 0


def _command(name: str, arguments: list[str]) -> int:
    """Settings of a command from its defaults, a config file, selectors and flags; then its recipe."""
    from finegrain import configure, settings_file

    command = COMMANDS[name]
    settings_class = resolve(command.settings)
    _check_not_empty(arguments)
    yes, arguments = "--yes" in arguments, [argument for argument in arguments if argument != "--yes"]
    config, arguments = _take(arguments, "--config")
    of_a_run, data = settings_file.read_settings(Path(config)) if config else (False, {})
    base = configure.settings_from_file(settings_class, data, str(config)) if config else {}
    settings_file.ask_for_foreign_code(str(config), base, arguments, yes=yes, of_a_run=of_a_run)
    own_choices = configure.choice_fields(settings_class)
    selectors, flags = configure.split_arguments(arguments, (*configure.FAMILIES, *own_choices))
    own = [selector for selector in selectors if configure.family_of(selector) in own_choices]
    selectors = [selector for selector in selectors if selector not in own]
    base = {**base, **_own_choices(settings_class, base, own)}
    methods: dict[str, Any] = {family: base.get(family) for family in command.methods}
    for family, default in command.methods.items():
        if default is not None and family in base and base[family] is None:
            raise UsageError(f"{config}: {family} is empty; name one, or leave it out for {family}:{default}")
    for selector in selectors:
        if configure.family_of(selector) not in methods:
            raise UsageError(f"`finegrain {name}` takes no {configure.family_of(selector)}; found {selector}")
    methods = configure.select(methods, selectors)
    for family, default in command.methods.items():
        if methods[family] is None and default is not None:
            methods[family] = catalog.load(family, default)()
    return _run(command, _parse(name, command, settings_class, base, methods, flags))


def _check_not_empty(arguments: list[str]) -> None:
    """No name is empty: `--out "$RUN"` of a variable that is not set would be the folder at hand."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument == "" or (argument.startswith("--") and argument.endswith("=")):
            raise UsageError(f"{argument[:-1] or before or 'the first argument'} is empty")


def _own_choices(settings_class: type[Any], base: dict[str, Any], selectors: list[str]) -> dict[str, Any]:
    """Fields of the command itself that selectors choose: segmenter:tokens, then segmenter.score:mean."""
    from dataclasses import MISSING, fields

    from finegrain import configure

    made = {field.name: field.default_factory for field in fields(settings_class) if field.default_factory is not MISSING}
    found: dict[str, Any] = {}
    for selector in sorted(selectors, key=lambda text: text.count(".")):
        name = configure.family_of(selector)
        start = found.get(name) or (base[name] if name in base else made[name]())
        found[name] = configure.chosen_field(settings_class, start, selector)
    return found


def _parse(name: str, command: Command, settings_class: type[Any], base: dict[str, Any], methods: dict[str, Any], flags: list[str]) -> Any:
    """The settings object: defaults, then the config file, then flags. `common` and `training` have no prefix on the command line."""
    import typing
    from dataclasses import MISSING, fields, make_dataclass

    import tyro

    from finegrain import configure

    hints = typing.get_type_hints(settings_class)
    helps = _attribute_docs(settings_class)
    rows, defaults = [], {}
    for field in fields(settings_class):
        if field.name in methods:
            if methods[field.name] is None:
                continue
            hint, value = type(methods[field.name]), methods[field.name]
        else:
            hint = hints[field.name]
            made = field.default_factory() if field.default_factory is not MISSING else field.default
            value = tyro.MISSING if made is MISSING else made
            value = base.get(field.name, value)
        flat = field.name in ("common", "training")
        hint = tyro.conf.Positional[hint] if field.name in command.positional else hint  # type: ignore[valid-type,misc]
        rows.append((field.name, typing.Annotated[hint, tyro.conf.arg(name="" if flat else None, help=helps.get(field.name))]))
        defaults[field.name] = value
    parsed_class = make_dataclass(settings_class.__name__, rows, frozen=True, kw_only=True)
    parsed_class.__doc__ = settings_class.__doc__
    parsed_class.__module__ = "builtins"  # it has no source, which the parser would look for once a field
    named = {family: catalog.names(family) for family in methods}
    named |= {field: list(configure.choices(settings_class, field)) for field in configure.choice_fields(settings_class)}
    choices = (f"{root}:NAME one of {', '.join(names)}" for root, names in named.items())
    shown = io.StringIO() if any(visible(flag) != flag for flag in flags) else sys.stderr  # what the parser says of a flag repeats it
    try:
        with redirect_stderr(shown):
            parsed = tyro.cli(
                parsed_class,
                prog=f"finegrain {name}",
                args=flags,
                default=parsed_class(**defaults),
                config=(tyro.conf.AvoidSubcommands,),
                description="\n\n".join([str(settings_class.__doc__), *choices]),
            )
    finally:
        if isinstance(shown, io.StringIO) and shown.getvalue():
            write_line(shown.getvalue().rstrip())
    return settings_class(**{field: getattr(parsed, field) for field in defaults})


def _attribute_docs(settings_class: type[Any]) -> dict[str, str]:
    """Docstrings below the fields of a dataclass."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(settings_class))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                found[name] = str(text)
    return found


def _run(command: Command, settings: Any) -> int:
    result = recipe(command)(settings)
    if os.environ.get("RANK", "0") == "0":  # torchrun's processes share one stdout
        print(json.dumps(result).replace("\x7f", "\\u007f"))  # the one control character that JSON leaves as it is
    return 0


def _again(arguments: list[str]) -> int:
    """The run of a run.json with the same settings; flags after it override them."""
    if not arguments or arguments[0].startswith("-"):
        raise UsageError("expected: finegrain again RUN/run.json --out OTHER")
    from finegrain.runs import REPEATED, read_record

    record = read_record(Path(arguments[0]))
    if "command" not in record or "settings" not in record:
        raise UsageError(f"{arguments[0]} is no run.json: it names no command and settings")
    if str(record["command"]) not in COMMANDS:
        raise unknown_name(f"command in {arguments[0]}", str(record["command"]), COMMANDS)
    before = REPEATED.set(record)
    try:
        return _command(record["command"], ["--config", arguments[0], "--no-resume", *arguments[1:]])
    finally:
        REPEATED.reset(before)


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


def run() -> None:
    """Entry point of the installed command."""
    sys.exit(main())
