"""The sources that `--data` names: one, or several as `A + B`, with weights as `A=0.7 + B=0.3`."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finegrain.errors import UsageError

Data = str | Path | Sequence[str | Path] | Mapping[Any, Any]
"""Python argument: a path or Hub name, several of them, or weights by path or name."""
BETWEEN = re.compile(r"\s+\+\s+")


class Named(NamedTuple):
    """One source as given."""

    source: str
    """File, folder or Hub name."""
    weight: float | None
    """Its share of the rows before normalisation; None where no source has a weight."""


def parse_sources(text: str) -> list[Named]:
    """The sources in a setting; a path that exists is one source, whatever characters it contains."""
    parts = BETWEEN.split(text.strip())
    if len(parts) == 1 or _exists(text):
        return [Named(text, None)]
    named = [_named(part) for part in parts]
    seen: dict[str, str] = {}
    for source, _ in named:
        key = str(Path(source).expanduser().resolve()) if _exists(source) else source
        if key in seen:
            raise UsageError(f"--data names {source} twice" + ("" if seen[key] == source else f" (as {seen[key]} too)"))
        seen[key] = source
    if bare := [source for source, weight in named if weight is None]:
        if len(bare) < len(named):
            raise UsageError(
                f"--data gives weights to some sources but not to {', '.join(bare)}; give every source a weight, such as {bare[0]}=0.5, or none"
            )
    return named


def check_one(text: str) -> None:
    """Stops with an error on several sources where only one can be read, because rows are written back or counted by name."""
    if len(named := parse_sources(text)) > 1:
        raise UsageError(f"{text} names {len(named)} sources, but only one can be read here; join them in a file or a folder")


def format_sources(data: Data) -> str:
    """The setting for the Python argument."""
    if isinstance(data, Mapping):
        return " + ".join(f"{path}={weight}" for path, weight in data.items())
    if isinstance(data, Sequence) and not isinstance(data, str):
        return " + ".join(map(str, data))
    return str(data)


def _exists(source: str) -> bool:
    try:
        return Path(source).expanduser().exists()
    except (OSError, RuntimeError):  # a name too long for the system, an unknown home directory
        return False


def _named(part: str) -> Named:
    source, equals, weight = part.rpartition("=")
    if not equals or "/" in weight or _exists(part):
        return Named(part, None)
    if not source.strip():
        raise UsageError(f"--data: {part!r} has a weight but no source")
    try:
        number = float(weight)
    except ValueError:
        raise UsageError(f"--data: the weight of {source} must be a number above 0, got {weight!r} (and there is no file {part})") from None
    if not (math.isfinite(number) and number > 0):
        raise UsageError(f"--data: the weight of {source} must be a finite number above 0, got {weight}")
    return Named(source.rstrip(), number)
