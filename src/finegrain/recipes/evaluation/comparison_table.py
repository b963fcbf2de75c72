"""The result of `finegrain eval compare` for a person, on stderr."""

import sys
from itertools import combinations
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finegrain.evaluate.reward_comparison import UNIT_FREE
from finegrain.evaluate.tables import format_share
from finegrain.ops.stats import Interval
from finegrain.terminal import make_visible
from finegrain.types import Json


def print_comparison(result: Json) -> None:
    """A line per reward, then agreement, the null and warnings."""
    names = _names([file["file"] for file in result["files"]])
    title = f"compared with {names[0]}: {result['answers']} answers to {result['prompts']} prompts"
    table = Table(title=escape(make_visible(title)))
    for column in ("", *UNIT_FREE, "distance", "length (spearman)"):
        table.add_column(column, no_wrap=column != "")
    against = {place: one for place, one in enumerate(result["compared"], 1)}
    for place, (name, file) in enumerate(zip(names, result["files"], strict=True)):
        one = against.get(place)
        alike = ["-"] * (len(UNIT_FREE) + 1) if one is None else [*(_cell(one[name]) for name in UNIT_FREE), _number(one["distance"])]
        table.add_row(*map(escape, (make_visible(name), *alike, _cell(file["length"]))))
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else 160)
    console.print(table)
    for text in _words(result):
        console.print(escape(make_visible(text)))


def _names(files: list[str]) -> list[str]:
    """Without their folders, where that tells them apart."""
    short = [Path(file).name for file in files]
    return short if len(set(short)) == len(set(files)) else files


def _cell(share: Json) -> str:
    """An interval, or a dash for a number that does not exist."""
    return "-" if share["mean"] is None else format_share(Interval(**share))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _words(result: Json) -> list[str]:
    found = [] if result["agreement"] is None else _agreement(result["agreement"])
    if result["null"] is not None and result["null"]["holds"]:
        found.append(result["null"]["sentence"])
    return [*found, *(f"warning: {text}" for text in result["warnings"])]


def _agreement(agreement: Json) -> list[str]:
    """The range over every two rewards but the first."""
    count, found = len(agreement["files"]), []
    for name in ("spearman", "distance"):
        known = [value for a, b in combinations(range(count), 2) if (value := agreement[name][a][b]) is not None]
        if known:
            span = f"{min(known):.3f}" + (f" to {max(known):.3f}" if len(known) > 1 else "")
            found.append(f"the {count} others among themselves: {name} {span}")
    return found
