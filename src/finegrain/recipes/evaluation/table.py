"""The result of `finegrain eval` for a person, on stderr."""

import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finegrain.evaluate.tables import format_share
from finegrain.ops.stats import Interval
from finegrain.terminal import make_visible
from finegrain.types import Json


def print_table(result: Json) -> None:
    """A line per line of the suite, then warnings and calibration."""
    table = Table(title=escape(make_visible(f"{', '.join(result['reward'])} on {result['data']}: {result['format']}, {result['problems']} prompts")))
    for column in ("", "accuracy [95 %]", "length only", "prompt-blind", ""):
        table.add_column(column, no_wrap=column != "")
    for line in result["lines"]:
        cells = (
            make_visible(line["name"]),
            _cell(line["accuracy"]),
            _cell(line["length_only"]),
            _cell(line["prompt_blind"]),
            make_visible(line["note"]),
        )
        table.add_row(*map(escape, cells))
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else 140)
    console.print(table)
    for text in _words(result):
        console.print(escape(text))


def _cell(share: Any) -> str:
    """An interval, or a dash for a baseline that was not fitted."""
    return "-" if isinstance(share, str) else format_share(Interval(**share))


def _words(result: Json) -> list[str]:
    lines = [f"warning: {make_visible(text)}" for text in result["warnings"]]
    calibration = result["calibration"]
    if calibration is not None:
        lines.append(f"calibration error {format_share(Interval(**calibration['ece']))}, nll {format_share(Interval(**calibration['nll']))} nats")
    for name, shares in result["attributes"].items():
        first = next(iter(shares))
        lines.append(f"{make_visible(name)} alone: {format_share(Interval(**shares[first]))} of {first}")
    batches = result["batches"]
    if batches["largest_difference"] is not None:
        lines.append(f"{batches['problems']} prompts scored again in other batches: largest difference {batches['largest_difference']:.2g}")
    blind = result["lines"][0]["prompt_blind"]
    return [*lines, f"prompt-blind: not fitted, {blind}"] if isinstance(blind, str) else lines
