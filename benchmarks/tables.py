"""Means with 95 % intervals as cells, and tables of means over seeds with Student-t intervals, as json and as Markdown."""

from collections.abc import Mapping, Sequence

import numpy as np

from finegrain.ops.stats import Interval, mean_interval

Cells = Mapping[str, Mapping[str, Sequence[float]]]
"""By row and column, one value per seed."""


def shown(interval: Interval, digits: int = 3, sign: str = "") -> str:
    """Mean ± half of the interval, which lies evenly around it; the mean alone where there is none. `sign` "+": with its sign."""
    half = "" if interval.high is None else f" ± {interval.high - interval.mean:.{digits}f}"
    return f"{interval.mean:{sign}.{digits}f}{half}"


def ranged(interval: Interval, digits: int = 3, sign: str = "") -> str:
    """Mean (low, high), for intervals that need not lie evenly around it; the mean alone where there is none."""
    mean, low, high = (None if value is None else f"{value:{sign}.{digits}f}" for value in interval[:3])
    return f"{mean}" if low is None or high is None else f"{mean} ({low}, {high})"


def summary(cells: Cells) -> dict[str, dict[str, list[float]]]:
    """By row and column, mean and half width."""
    found: dict[str, dict[str, list[float]]] = {}
    for row, columns in cells.items():
        found[row] = {}
        for name, values in columns.items():
            interval = mean_interval(np.asarray(values))
            assert interval.high is not None
            found[row][name] = [round(interval.mean, 4), round(interval.high - interval.mean, 4)]
    return found


def markdown(table: Mapping[str, Mapping[str, Sequence[float]]], corner: str, digits: int = 2) -> str:
    """A table of a summary; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in table.values() for name in row))
    lines = [f"| {corner} | {' | '.join(columns)} |", f"|{' --- |' * (len(columns) + 1)}"]
    for row, cells in table.items():
        shown = [f"{cells[name][0]:.{digits}f} ± {cells[name][1]:.{digits}f}" if name in cells else "" for name in columns]
        lines.append(f"| {row} | {' | '.join(shown)} |")
    return "\n".join(lines)
