"""Results as lines of text: every number with its interval, or the reason why it has none."""

from collections.abc import Mapping
from typing import NamedTuple

from finegrain.evaluate.rewardbench import SECTIONS, RewardBench
from finegrain.ops.stats import Interval


class Line(NamedTuple):
    """One line of a table."""

    name: str
    share: Interval
    note: str
    """A remark on the number; empty where none is needed."""


def make_lines(result: RewardBench) -> list[Line]:
    """Score, sections, then subsets under their section, prior sets, and finally the mean over rows."""
    short = [section for section, share in result.coverage.items() if share < 1]
    table = [Line("score", result.score, f"incomplete: {', '.join(short)}" if short else "")]
    for section, weights in SECTIONS.items():
        if section in result.sections:
            table.append(Line(section, result.sections[section], _coverage(result.coverage[section])))
            table += [Line(f"  {name}", result.subsets[name], "") for name in weights if name in result.subsets]
    known = {name for weights in SECTIONS.values() for name in weights}
    table += [Line(name, share, "in no section") for name, share in result.subsets.items() if name not in known]
    if result.prior:
        table.append(Line("prior sets", result.prior, ""))
    tied = f"{result.tied} of {result.row_accuracy.rows} rows tied" if result.tied else ""
    return [*table, Line("all rows", result.row_accuracy, tied)]


def format_share(share: Interval) -> str:
    """`0.812 [0.779, 0.841]`; without bounds the reason, where the number of rows shows it."""
    if share.low is None or share.high is None:
        return f"{share.mean:.3f} (no interval: {share.rows} rows)" if share.rows < 2 else f"{share.mean:.3f} (no interval)"
    return f"{share.mean:.3f} [{share.low:.3f}, {share.high:.3f}]"


def markdown(columns: Mapping[str, RewardBench]) -> str:
    """Several reward models in one table, a line per section: the columns are the models."""
    names = list(columns)
    rows = ["score", *SECTIONS, "prior sets", "all rows"]
    found = {name: {line.name: line for line in make_lines(result)} for name, result in columns.items()}
    body = [[row, *(format_share(found[name][row].share) if row in found[name] else "not scored" for name in names)] for row in rows]
    header = ["", *names]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *body)) + "\n"


def _coverage(share: float) -> str:
    return "" if share == 1 else f"{share:.0%} of its rows"
