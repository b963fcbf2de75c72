"""Numbers of a finding about online RL: what a series was at both ends of a run, and what held-out prompts came to."""

from collections.abc import Mapping, Sequence

import numpy as np

from finegrain.diagnose import online
from finegrain.diagnose.groups import FEWEST_ROWS
from finegrain.diagnose.hacking import split_ends
from finegrain.ops.stats import mean_interval
from finegrain.report.block import Block
from finegrain.report.numbers import Shown, format_interval, format_number, format_percent, format_recorded
from finegrain.report.online import BufferNumbers, Series
from finegrain.report.read import Run

ENDS = (
    "An arrow leads from the mean over the first fifth of the buffers to that over the last, and the interval is that of the change "
    "(Welch, buffers as observations); the verdicts' thresholds are ours."
)
ROUNDING = 1e-12
"""Share of a number below which its change is rounding."""
NAME = 40
"""Maximum number of characters of a reward's name."""


def make_block(title: str, verdict: str, numbers: Sequence[Shown], notes: Sequence[str]) -> Block:
    """A finding with the words of its verdict."""
    return Block(title=title, verdict=verdict, words=online.WORDS[verdict], numbers=numbers, notes=notes)


def format_ends(name: str, values: Series, *, share: bool = False) -> list[Shown]:
    """A series' first and last fifth and the interval of their difference; one mean where there are too few buffers, nothing where there are none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return []
    if len(known) < FEWEST_ROWS:
        return [format_interval(f"{name}, mean", mean_interval(known), "", over="buffers", share=share)]
    first, last = (float(part.mean()) for part in split_ends(known))
    write = format_percent if share else format_number
    change = online.compare_ends(known)
    assert change is not None
    low, high = (0.0 if bound is None or abs(bound) < ROUNDING * max(abs(first), abs(last)) else bound for bound in (change.low, change.high))
    scale, unit = (100.0, " points") if share else (1.0, "")
    bounds = f"{format_number(scale * low, signed=True)} to {format_number(scale * high, signed=True)}{unit}"
    return [Shown(name, f"{write(first)} → {write(last)}", f"change {bounds}, {len(known)} buffers")]


def list_held_out(run: Run, buffers: BufferNumbers) -> list[Shown]:
    """Held-out prompts before and after training, as recorded; of a run that recorded neither, its first and last evaluation."""
    other = run.record.as_json()
    recorded = [("before", other.get("evaluation_before")), ("after", other.get("evaluation"))]
    results = [(which, own["eval_reward"]) for which, own in recorded if isinstance(own, Mapping) and "eval_reward" in own]
    if results:
        return [format_recorded(f"held-out prompts, {which}", value, "no interval recorded") for which, value in results]
    places = np.flatnonzero(np.isfinite(buffers.read("eval_reward")))
    shown = []
    for place, which in dict.fromkeys(((int(places[0]), "first"), (int(places[-1]), "last"))) if len(places) else ():
        mean, low, high = (float(buffers.read(f"eval_reward{end}")[place]) for end in ("", "_low", "_high"))
        bounded = np.isfinite(low) and np.isfinite(high)
        interval = f"{format_number(low)} to {format_number(high)}, as recorded" if bounded else "no interval recorded"
        shown.append(Shown(f"held-out prompts, {which}: buffer {buffers.buffers[place]}", format_number(mean), interval))
    return shown
