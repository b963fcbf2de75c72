"""A user's own reward function, with the signature that GRPOTrainer's have: fn(prompts=, completions=, **columns) -> list.

An item of the list is a number, None (this answer is not scored), a list of spans (start, end, value), or a list of numbers, one per token.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from finegrain.errors import UsageError
from finegrain.scoring.calling import call_function, is_async, start_function
from finegrain.scoring.sources import RewardOptions
from finegrain.scoring.text_reward import TextReward, open_token_reader
from finegrain.types import Json


def open_function(sources: Sequence[str], options: RewardOptions) -> TextReward:
    """The function of `file.py:name`."""
    (path,) = sources
    function = load_function(path, options.files)
    call = partial(call_function, path, function, options.timeout)
    start = partial(start_function, path, function, options.timeout) if is_async(function) else None
    return TextReward(path, call, partial(identify_function, path), open_token_reader(options), block=options.block, start=start)


def load_function(path: str, files: MutableMapping[str, Any] | None = None) -> Callable[..., Any]:
    """The function `name` of `file.py:name`: the user's own code, run as it is, with its folder on the path as a script has it.

    files: modules by file that this command has run already; functions of one file share what it holds.
    """
    file, separator, name = path.rpartition(":")
    if not separator or not Path(file).is_file():
        raise UsageError(f"expected file.py:function, got {path!r}" + ("" if not separator else f" (no file {file})"))
    files = {} if files is None else files
    if file not in files:
        files[file] = _run_file(Path(file))
    function = getattr(files[file], name, None)
    if not callable(function):
        raise UsageError(f"{file} has no function {name!r}")
    return function  # type: ignore[no-any-return]


def _run_file(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"user_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    if (folder := str(file.resolve().parent)) not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's code may fail in any way
        del sys.modules[spec.name]
        raise UsageError(f"{file} does not run: {type(error).__name__}: {error}") from error
    return module


def identify_function(path: str) -> Json:
    """Of `file.py:name`: the function's name and the hash of its file; what the file imports is not looked at."""
    file, _, name = path.rpartition(":")
    return {"kind": "function", "source": path, "name": name, "file": hashlib.sha256(Path(file).read_bytes()).hexdigest()}
