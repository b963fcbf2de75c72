"""Files of settings, written by a person or by a run. Names may not repeat, and code that a file would run is asked about first."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from finegrain.configure import to_json
from finegrain.errors import UsageError
from finegrain.runs import flat
from finegrain.terminal import write_line

CODE = re.compile(r"\.py:\w+$")
"""The end of a reference to a user's function, file.py:name."""


def read_settings(file: Path) -> tuple[bool, dict[str, Any]]:
    """Whether a file is a run.json, and the settings in it or in a YAML or JSON file."""
    file = file / "run.json" if file.is_dir() else file
    try:
        text = file.read_text(encoding="utf-8-sig")
        data = json.loads(text, object_pairs_hook=_refuse_repeats) if file.suffix == ".json" else yaml.load(text, _Loader)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {file}: {' '.join(str(error).split()) or type(error).__name__}") from error
    of_a_run = isinstance(data, dict) and "settings" in data
    data = data["settings"] if of_a_run else data
    if not isinstance(data, dict):
        raise UsageError(f"{file} holds no settings: expected names and values")
    return of_a_run, {str(name): value for name, value in data.items()}


def ask_for_foreign_code(file: str, settings: dict[str, Any], arguments: list[str], *, yes: bool, of_a_run: bool) -> None:
    """Stop, or ask on a terminal, before a file makes this process run code: code that comes with a model, or functions that a run.json names."""
    given = {"--trust-remote-code", "--no-trust-remote-code"} & set(arguments)
    found = []
    for name, value in flat({name: to_json(value) for name, value in settings.items()}).items():
        if name.rpartition(".")[2] == "trust_remote_code" and value is True and not given:
            found.append(f"{name} (code that comes with the model)")
        elif of_a_run and any(isinstance(item, str) and CODE.search(item) for item in (value if isinstance(value, list) else [value])):
            found.append(f"{name} {value}")
    if not found or yes:
        return
    message = f"{file} runs code that is not part of finegrain: {', '.join(found)}"
    if not sys.stdin.isatty():
        raise UsageError(f"{message}; read it, then pass --yes")
    write_line(f"{message}\nrun it? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("not run")


def _refuse_repeats(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The object, or a UsageError if a name is repeated: it is unclear which value is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [str(name) for name, _ in pairs]
        raise UsageError(f"{next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return found


class _Loader(yaml.SafeLoader):
    """The safe loader of YAML, with an error for a repeated name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The names and values of an object."""
        names = [name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
        _refuse_repeats([(name, None) for name in names])
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found
