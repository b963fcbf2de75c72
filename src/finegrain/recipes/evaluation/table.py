"""The results of `finegrain eval` and `finegrain eval compare` for a person, on stderr."""

import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finegrain.evaluate.marked_tokens import describe_marks
from finegrain.evaluate.reward_comparison import UNIT_FREE
from finegrain.evaluate.tables import format_share
from finegrain.ops.stats import Interval
from finegrain.terminal import make_visible
from finegrain.types import Json


def print_table(result: Json) -> None:
    """A line per line of the suite, then warnings and calibration."""
    rows = [
        (line["name"], _cell(line["accuracy"]), _cell(line["length_only"]), _cell(line["prompt_blind"]), line["note"]) for line in result["lines"]
    ]
    title = f"{', '.join(result['reward'])} on {result['data']}: {result['format']}, {result['problems']} prompts"
    _print(title, ("", "accuracy [95 %]", "length only", "prompt-blind", ""), rows, _words(result), 140)


def _print(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str], width: int) -> None:
    """A table and lines below it; `width`: of what is no terminal."""
    table = Table(title=escape(make_visible(title)))
    for column in columns:
        table.add_column(column, no_wrap=column != "")
    for cells in rows:
        table.add_row(*(escape(make_visible(cell)) for cell in cells))
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else width)
    console.print(table)
    for text in lines:
        console.print(escape(make_visible(text)))


def _cell(share: Any) -> str:
    """An interval, or a dash for a baseline that was not fitted and for a number that does not exist."""
    return "-" if isinstance(share, str) or share["mean"] is None else format_share(Interval(**share))


def _words(result: Json) -> list[str]:
    lines = [f"warning: {text}" for text in result["warnings"]]
    calibration = result["calibration"]
    if calibration is not None:
        lines.append(f"calibration error {format_share(Interval(**calibration['ece']))}, nll {format_share(Interval(**calibration['nll']))} nats")
    for name, shares in result["attributes"].items():
        first = next(iter(shares))
        lines.append(f"{name} alone: {format_share(Interval(**shares[first]))} of {first}")
    lines += describe_marks({name: Interval(**share) for name, share in result["marked_tokens"].items()})
    batches = result["batches"]
    if batches["largest_difference"] is not None:
        lines.append(f"{batches['problems']} prompts scored again in other batches: largest difference {batches['largest_difference']:.2g}")
    blind = result["lines"][0]["prompt_blind"]
    return [*lines, f"prompt-blind: not fitted, {blind}"] if isinstance(blind, str) else lines


def print_comparison(result: Json) -> None:
    """A line per reward, then agreement, the null and warnings."""
    names = _names([file["file"] for file in result["files"]])
    alike = [["-"] * (len(UNIT_FREE) + 1), *([*(_cell(one[name]) for name in UNIT_FREE), _number(one["distance"])] for one in result["compared"])]
    rows = [(name, *cells, _cell(file["length"])) for name, cells, file in zip(names, alike, result["files"], strict=True)]
    title = f"compared with {names[0]}: {result['answers']} answers to {result['prompts']} prompts"
    _print(title, ("", *UNIT_FREE, "distance", "length (spearman)"), rows, _about_comparison(result), 160)


def _names(files: list[str]) -> list[str]:
    """Without their folders, where that tells them apart."""
    short = [Path(file).name for file in files]
    return short if len(set(short)) == len(set(files)) else files


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _about_comparison(result: Json) -> list[str]:
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
