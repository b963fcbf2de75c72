"""A user's own reward function, with the signature that GRPOTrainer's have: fn(prompts=, completions=, **columns) -> list.

An item of the list is a number, None (this answer is not scored), a list of spans (start, end, value), or a list of numbers, one per token.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from finegrain.data.records import Text
from finegrain.errors import UsageError
from finegrain.scoring.sources import RewardOptions
from finegrain.scoring.text_reward import Completion, TextReward, open_token_reader
from finegrain.types import Json

TAKEN = frozenset({"prompt", "prompts", "completion", "completions", "chosen", "rejected", "response", "answer", "messages"})
"""Columns that are the texts themselves."""


def open_function(sources: Sequence[str], options: RewardOptions) -> TextReward:
    """The function of `file.py:name`."""
    (path,) = sources
    return TextReward(path, partial(call_function, path, load_function(path)), partial(identify_function, path), open_token_reader(options))


def load_function(path: str) -> Callable[..., Any]:
    """The function `name` of `file.py:name`: the user's own code, run as it is."""
    file, separator, name = path.rpartition(":")
    if not separator or not Path(file).is_file():
        raise UsageError(f"expected file.py:function, got {path!r}" + ("" if not separator else f" (no file {file})"))
    spec = importlib.util.spec_from_file_location(f"user_{Path(file).stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"{file} has no function {name!r}")
    return function  # type: ignore[no-any-return]


def call_function(path: str, function: Callable[..., Any], asked: Sequence[Completion]) -> Sequence[Any]:
    """What it says of each answer, all of them in one call."""
    shared = set.intersection(*(set(one.columns) for one in asked)) - TAKEN if asked else set()
    columns = {name: [one.columns[name] for one in asked] for name in sorted(shared)}
    rows = f"rows {asked[0].row} to {asked[-1].row}" if asked else "no rows"
    try:
        found = function(prompts=[_plain(one.prompt) for one in asked], completions=[_plain(one.completion) for one in asked], **columns)
    except Exception as error:  # a user's code may fail in any way
        raise UsageError(f"{path} failed on {rows}: {type(error).__name__}: {error}") from error
    found = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != len(asked):
        told = f"{len(found)} items" if isinstance(found, Sequence) else type(found).__name__
        raise UsageError(f"{path} must return a list with one item per completion, {len(asked)} on {rows}; it returned {told}")
    return found


def identify_function(path: str) -> Json:
    """Of `file.py:name`: the function's name and the hash of its file; what the file imports is not looked at."""
    file, _, name = path.rpartition(":")
    return {"kind": "function", "source": path, "name": name, "file": hashlib.sha256(Path(file).read_bytes()).hexdigest()}


def _plain(text: Text) -> str | list[Json]:
    """A string, or messages as dictionaries."""
    return text if isinstance(text, str) else [turn.message() for turn in text]
