"""Several runs side by side: the same numbers in columns, and paired differences on their common rows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from finegrain.ops.stats import mean_interval
from finegrain.report.numbers import format_interval, format_number
from finegrain.report.pairs import ExaminedPair
from finegrain.report.read import Run
from finegrain.report.verdicts import make_blocks
from finegrain.report.visible import clip_text

QUARTERS = 4
"""Parts of the common range of KL."""


class ComparisonLine(NamedTuple):
    """One line of the comparison: a cell per run, each a value and its interval."""

    name: str
    cells: Sequence[tuple[str, str]]
    heading: bool = False
    """A verdict, with the numbers behind it in the lines below."""


def compare_runs(runs: Sequence[Run]) -> list[ComparisonLine]:
    """Verdicts, their numbers, and differences to the first run; empty for one run."""
    if len(runs) < 2:
        return []
    found = [make_blocks(run) for run in runs]
    titles = dict.fromkeys(block.title for own in found for block in own)
    rows = []
    for title in titles:
        same = [next((block for block in own if block.title == title), None) for own in found]
        rows.append(ComparisonLine(title, [("not measured", "") if block is None else (block.verdict, "") for block in same], heading=True))
        names = dict.fromkeys(shown.name for block in same if block is not None for shown in block.numbers)
        for name in names:
            shown = [next((entry for entry in block.numbers if entry.name == name), None) if block is not None else None for block in same]
            rows.append(ComparisonLine(name, [("not measured", "") if entry is None else (entry.value, entry.interval) for entry in shown]))
    rows += _at_equal_kl(runs)
    if not any(run.pairs for run in runs):
        return rows
    rows.append(ComparisonLine("Differences, paired by row", [("the first run", ""), *[("minus the first run", "")] * (len(runs) - 1)], heading=True))
    rewards = any(np.isfinite(pair.reward_margin) for run in runs for pair in run.pairs or ())
    changes = [
        ("chosen answers, change", ("chosen",), "nats", _change("chosen")),
        ("rejected answers, change", ("rejected",), "nats", _change("rejected")),
    ]
    for name, roles, unit, value in [("pairs in order, share", ("chosen", "rejected"), "", _in_order)] if rewards else changes:
        own = [_difference(runs[0], run, roles, unit, value) for run in runs[1:]]
        rows.append(ComparisonLine(name, [("0", "no interval: compared with itself"), *own]))
    return rows


def _at_equal_kl(runs: Sequence[Run]) -> list[ComparisonLine]:
    """Reward and gold of buffers of similar KL: quarters of the range of KL that every run has reached; [] unless all runs are online."""
    known = [run.buffers for run in runs if run.buffers is not None and run.buffers.has("kl")]
    if len(known) < len(runs):
        return []
    kl = [buffers.read("kl") for buffers in known]
    most = min(float(own[np.isfinite(own)].max()) for own in kl)
    if most <= 0:
        return []
    names = dict.fromkeys(name for buffers in known for name in buffers.golds())
    quantities = [("reward", [buffers.read("reward") for buffers in known])]
    quantities += [
        (f"gold {clip_text(name, 40)}", [buffers.golds().get(name, np.full(len(buffers.buffers), np.nan)) for buffers in known]) for name in names
    ]
    rows = [ComparisonLine("At equal KL", [(f"up to {format_number(most)} nats per token", "")] * len(runs), heading=True)]
    for quarter in range(QUARTERS):
        low, high = quarter / QUARTERS * most, (quarter + 1) / QUARTERS * most
        for name, series in quantities:
            cells = []
            for own, values in zip(kl, series, strict=True):
                inside = values[(own > low if quarter else own >= -np.inf) & (own <= high) & np.isfinite(values)]
                shown = format_interval("", mean_interval(inside), "", over="buffers")
                cells.append((shown.value, shown.interval) if len(inside) else ("not measured", "no buffer of this KL"))
            rows.append(ComparisonLine(f"{name}, KL {format_number(low)} to {format_number(high)}", cells))
    return rows


Value = Callable[[ExaminedPair], float]


def _change(role: str) -> Value:
    return lambda pair: pair.change(role)


def _in_order(pair: ExaminedPair) -> float:
    """1, 0, or 1/2 where the scores are equal; NaN without two scores."""
    return float("nan") if pair.tie else float(0.5 + 0.5 * np.sign(pair.reward_margin))


def _difference(first: Run, other: Run, roles: Sequence[str], unit: str, value: Value) -> tuple[str, str]:
    """Paired by row and answer texts."""
    before = {_key(pair, roles): value(pair) for pair in first.pairs or () if pair.answers.keys() >= set(roles)}
    shared = [
        (value(pair), before[_key(pair, roles)]) for pair in other.pairs or () if pair.answers.keys() >= set(roles) and _key(pair, roles) in before
    ]
    values = [own - old for own, old in shared if np.isfinite(own) and np.isfinite(old)]
    if not values:
        return "not measured", "the runs have no row in common"
    shown = format_interval(name="", interval=mean_interval(values), unit=unit, over="shared pairs", signed=True)
    return shown.value, shown.interval


def _key(pair: ExaminedPair, roles: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    return pair.row, tuple(pair.answers[role].text for role in roles)
