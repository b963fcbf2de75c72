"""The command line: which command is meant, what it prints and its exit code.

`--help`, `methods` and a mistyped command are answered from tables of strings; parser and job of a command are imported when it runs.
"""

import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finegrain import __version__, catalog
from finegrain.commands import COMMANDS, GROUPS, SUMMARIES, recipe, resolve, sub_commands
from finegrain.errors import CheckpointError, FinegrainError, Interrupted, UsageError, unknown_name
from finegrain.files import cache_folder, replace_file
from finegrain.runs import REPEATED, read_record
from finegrain.terminal import write_line

HELP = frozenset({"-h", "--help"})


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
    words = 2 if " ".join(arguments[:2]) in SUMMARIES else 1
    command, rest = " ".join(arguments[:words]), arguments[words:]
    if command not in SUMMARIES and (known := sub_commands(command)):
        return _group(command, rest, known)
    if command not in SUMMARIES:
        raise unknown_name("command", command, SUMMARIES)
    if rest and rest[0].replace("-", "").isalpha() and not rest[0].startswith("-") and (known := sub_commands(command)):
        raise unknown_name("command", f"{command} {rest[0]}", known)
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


def _group(name: str, arguments: list[str], known: Mapping[str, str]) -> int:
    """The sub-commands of a first word that is no command itself; another second word is an error."""
    if arguments and not HELP.intersection(arguments):
        raise unknown_name("command", f"{name} {arguments[0]}", known)
    print("\n".join([f"usage: finegrain {name} COMMAND", "", *(f"  finegrain {full}  {summary}" for full, summary in known.items())]))
    return 0


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
    """Parse the settings of a command, do its job, print the result as one line of JSON."""
    if HELP.intersection(arguments):
        return _help(name, arguments)
    settings = resolve("parsing:parse_settings")(name, arguments)
    result = recipe(COMMANDS[name])(settings)
    if os.environ.get("RANK", "0") == "0":  # torchrun's processes share one stdout
        print(json.dumps(result).replace("\x7f", "\\u007f"))  # the one control character that JSON leaves as it is
    return 0


def _help(name: str, arguments: list[str]) -> int:
    """Help of a command and of the catalog's methods on its line: kept, since importing those methods takes a second of torch."""
    methods = {f"{method.family}:{method.name}" for method in catalog.METHODS}
    file = cache_folder() / "help" / _key_of_help([name, *arguments]) if methods.issuperset(set(arguments) - HELP) else None
    if file is not None and file.is_file():
        print(file.read_text(encoding="utf-8"), end="")
        return 0
    text = _Copied(sys.stdout)
    try:
        with redirect_stdout(text):
            resolve("parsing:parse_settings")(name, arguments)
    except SystemExit as stop:
        if not stop.code and file is not None:
            with suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                replace_file(file, text.getvalue())
        raise
    return 0


class _Copied(io.StringIO):
    """What is written to a stream, beside it."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text)
        return super().write(text)

    def isatty(self) -> bool:
        return bool(self._stream.isatty())


def _key_of_help(words: list[str]) -> str:
    """Of everything that a help depends on: the words, the terminal, the source files and the parser's version."""
    files = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(Path(__file__).parent.rglob("*.py"))]
    colours = [os.environ.get(variable) for variable in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM")]
    facts = [words, shutil.get_terminal_size(), sys.stdout.isatty(), sys.stdout.encoding, colours, files, sys.version, version("tyro")]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]


def _again(arguments: list[str]) -> int:
    """The run of a run.json with the same settings; flags after it override them."""
    if not arguments or arguments[0].startswith("-"):
        raise UsageError("expected: finegrain again RUN/run.json --out OTHER")
    record = read_record(Path(arguments[0]))
    if record.command is None or record.settings is None:
        raise UsageError(f"{arguments[0]} is no run.json: it names no command and settings")
    if str(record.command) not in COMMANDS:
        raise unknown_name(f"command in {arguments[0]}", str(record.command), COMMANDS)
    before = REPEATED.set(record)
    try:
        fresh = ["--no-resume"] if isinstance(record.settings, Mapping) and "common" in record.settings else []
        return _command(record.command, ["--config", arguments[0], *fresh, *arguments[1:]])
    finally:
        REPEATED.reset(before)


def run() -> None:
    """Entry point of the installed command."""
    sys.exit(main())
