"""A function of the user's own, named as `file.py:name`."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finegrain.errors import UsageError


def is_function(source: str) -> bool:
    """Whether a reward is named as `file.py:name`."""
    return source.rpartition(":")[0].endswith(".py")


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
