"""Drawings of a reward model's scores as inline SVG: confidence against accuracy, length against score; and its confident mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from finegrain.diagnose import confidence
from finegrain.evaluate.calibration import Bin
from finegrain.ops.stats import mean_interval
from finegrain.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Place, draw_rule, pad_bounds, ticks
from finegrain.report.numbers import format_interval, format_number, format_percent
from finegrain.report.read import Run
from finegrain.report.reward_findings import PairSubset, split_pairs

MOST_POINTS = 400
MOST_WRONG = 5
LENGTH_BINS = 5


class Mistake(NamedTuple):
    """A pair that the model orders wrongly."""

    row: int
    chance: str
    """The probability that the model gives to the label."""
    margin: str
    deviation: str
    lengths: str
    kind: str


@dataclass(frozen=True)
class Figure:
    """A drawing, a text description, and its numbers as a table."""

    title: str
    axes: str
    svg: Markup
    marks: Sequence[tuple[str, str]]
    """Class and meaning of each kind of mark."""
    head: Sequence[str]
    table: Sequence[Sequence[str]]


@dataclass(frozen=True)
class RewardView:
    """The reward section of one run."""

    figures: Sequence[Figure]
    mistakes: Sequence[Mistake]
    counted: str
    """A sentence on the number of wrongly ordered pairs."""


def make_reward_view(run: Run) -> RewardView | None:
    """None for a run without scored pairs."""
    found = split_pairs(run)
    if not found:
        return None
    figures = [draw_reliability(part) for part in found] + [draw_length(part) for part in found]
    wrong = [f"{int((part.margins < 0).sum())} of {len(part.pairs)} {part.name} pairs" for part in found]
    return RewardView(figures, [line for part in found for line in find_mistakes(part)], " and ".join(wrong))


def find_mistakes(part: PairSubset) -> list[Mistake]:
    """The wrongly ordered pairs with the highest confidence."""
    wrong = sorted((pair for pair in part.pairs if pair.reward_margin < 0), key=lambda pair: pair.reward_margin)
    return [
        Mistake(
            pair.row,
            format_percent(1 - float(confidence.confidence(np.array([pair.reward_margin]))[0])),
            format_number(pair.reward_margin, signed=True),
            format_number(pair.reward_margin_std),
            " and ".join(str(int(pair.answers[role].mask.sum())) for role in ("chosen", "rejected")),
            part.name,
        )
        for pair in wrong[:MOST_WRONG]
    ]


def draw_reliability(part: PairSubset) -> Figure:
    """Accuracy of pairs of similar confidence, with Wilson's intervals; bins of a calibrated model touch the diagonal."""
    at_x: Place = lambda value: LEFT + 8 + (value - 0.5) * 2 * (WIDTH - LEFT - RIGHT - 8)
    at_y: Place = lambda value: HEIGHT - BOTTOM - value * (HEIGHT - TOP - BOTTOM)
    bins = part.bins
    words = [_said(own) for own in bins]
    title = f"Confidence against accuracy, {part.name} pairs"
    drawn = [
        *(draw_rule(at_y(tick), format_percent(tick)) for tick in (0.0, 0.25, 0.5, 0.75, 1.0)),
        f'<line class="ideal" x1="{at_x(0.5)}" y1="{at_y(0.5):.1f}" x2="{at_x(1.0)}" y2="{at_y(1.0):.1f}"/>',
        *(_across(at_x(tick), format_percent(tick)) for tick in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
        *(_bin(own, words[place], at_x, at_y) for place, own in enumerate(bins)),
    ]
    svg = _svg(f"{title}: " + "; ".join(words), drawn)
    marks = [("whisker", "share right and its interval; larger dots have more rows"), ("ideal", "calibrated: share right equals confidence")]
    table = [_cells(own) for own in bins]
    return Figure(title, "across: confidence; up: share right", svg, marks, ("mean confidence", "share right", "95 % interval (Wilson)"), table)


def draw_length(part: PairSubset) -> Figure:
    """Score of each answer against its tokens, and the mean score of answers of similar length."""
    lengths, scores = part.lengths, part.scores
    most = float(lengths.max(initial=1))
    low, high = pad_bounds(float(scores.min()), float(scores.max()))
    at_x: Place = lambda value: LEFT + value / most * (WIDTH - LEFT - RIGHT)
    at_y: Place = lambda value: HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
    title = f"Length against score, {part.name} answers"
    shown = np.unique(np.linspace(0, len(lengths) - 1, min(len(lengths), MOST_POINTS // 2)).round().astype(int))
    points = [
        _point(kind, at_x(float(lengths[place, side])), at_y(float(scores[place, side])))
        for side, kind in enumerate(("chosen", "rejected"))
        for place in shown
    ]
    places, values = lengths.ravel(), scores.ravel()
    groups = [own for own in np.array_split(np.argsort(places, kind="stable"), LENGTH_BINS) if len(own)]
    means = [(int(places[own].min()), int(places[own].max()), float(places[own].mean()), mean_interval(values[own])) for own in groups]
    line = " ".join(f"{at_x(middle):.1f},{at_y(mean.mean):.1f}" for _, _, middle, mean in means)
    table, words = [], []
    for first, last, _, mean in means:
        shown_mean = format_interval("", mean, "", over="answers", signed=True)
        table.append((f"{first} to {last}", shown_mean.value, shown_mean.interval))
        words.append(f"{first} to {last} tokens {shown_mean.value}")
    stops = [most * share for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    drawn = [
        *(draw_rule(at_y(tick), format_number(tick)) for tick in ticks(low, high)),
        *(_across(at_x(tick), f"{tick:.0f}") for tick in stops),
        *points,
        f'<polyline class="line mean" points="{line}"/>',
    ]
    marks = [("dot-chosen", "chosen"), ("dot-rejected", "rejected"), ("mean", "mean of a fifth of the answers, by length")]
    svg = _svg(f"{title}, mean score: " + "; ".join(words), drawn)
    return Figure(title, "across: tokens; up: score", svg, marks, ("tokens", "mean score", "95 % interval"), table)


def _said(own: Bin) -> str:
    sure, right, interval = _cells(own)
    return f"confidence {sure}, right {right} ({interval})"


def _cells(own: Bin) -> tuple[str, str, str]:
    shown = format_interval("", own.accuracy, "", over="rows", share=True)
    return format_percent(own.confidence), shown.value, shown.interval


def _bin(own: Bin, words: str, at_x: Place, at_y: Place) -> str:
    x, (mean, low, high, rows) = at_x(own.confidence), own.accuracy
    assert low is not None
    assert high is not None
    radius = min(7.0, 2.0 + rows**0.5 / 2)
    return (
        f'<g class="whisker"><title>{escape(words)}</title><line x1="{x:.1f}" x2="{x:.1f}" y1="{at_y(low):.1f}" y2="{at_y(high):.1f}"/>'
        f'<circle cx="{x:.1f}" cy="{at_y(mean):.1f}" r="{radius:.1f}"/></g>'
    )


def _point(kind: str, x: float, y: float) -> str:
    if kind == "chosen":
        return f'<circle class="dot-chosen" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'
    return f'<path class="dot-rejected" d="M{x - 2.6:.1f} {y - 2.6:.1f}l5.2 5.2m0 -5.2l-5.2 5.2"/>'


def _across(x: float, label: str) -> str:
    """A number below the horizontal axis."""
    anchor = "start" if x <= LEFT + 8 else "end" if x >= WIDTH - RIGHT - 1 else "middle"
    return f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{label}</text>'


def _svg(words: str, drawn: Sequence[str]) -> Markup:
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">{"".join(drawn)}</svg>')
