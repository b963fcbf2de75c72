"""Line charts as inline SVG: no library, no script, colours by class so that dark mode and print work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from finegrain.report.numbers import format_number

WIDTH, HEIGHT = 340, 170
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 10, 24
POINTS = 160
"""Points of one line; longer series are averaged in bins."""


Place = Callable[[float], float]


class Series(NamedTuple):
    """One line."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: int
    """Class `c0` ... of the style sheet."""
    dash: int
    """Class `d0` ..."""
    raw: tuple[Sequence[float], Sequence[float]] = ((), ())
    """Places and values that a smoothed line comes from, drawn faintly behind it."""
    band: tuple[Sequence[float], Sequence[float]] = ((), ())
    """Lower and upper bound at each step, finite; drawn as an area behind the line."""


class ChartMark(NamedTuple):
    """A vertical line."""

    step: float
    words: str


@dataclass(frozen=True)
class Chart:
    """A drawing with title, legend and a text description of the last values."""

    title: str
    svg: Markup
    legend: Sequence[tuple[str, int, int, str, str]]
    """Name, colour, dash, first and last value (both empty where the line has a word instead of numbers)."""


def draw_chart(title: str, series: Sequence[Series], *, unit: str = "step", marks: Sequence[ChartMark] = ()) -> Chart | None:
    """A chart of the series that have a finite value; None where none has. `unit`: what stands before the numbers of the horizontal axis."""
    lines = [(line, *bin_points(line.steps, line.values)) for line in series]
    lines = [(line, x, y) for line, x, y in lines if len(x)]
    if not lines:
        return None
    behind = [(line, *bin_points(*line.raw)) for line, _, _ in lines if len(line.raw[0])]
    low_x, high_x = min(float(x.min()) for _, x, _ in lines), max(float(x.max()) for _, x, _ in lines)
    heights = np.concatenate([*(y for _, _, y in lines + behind), *(np.asarray(bound, dtype=float) for line, _, _ in lines for bound in line.band)])
    low_y, high_y = pad_bounds(float(heights.min()), float(heights.max()))
    at_x: Place = lambda value: LEFT + (value - low_x) / max(high_x - low_x, 1e-12) * (WIDTH - LEFT - RIGHT)
    at_y: Place = lambda value: HEIGHT - BOTTOM - (value - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)
    legend = [(line.name, line.colour, line.dash, format_number(float(y[0])), format_number(float(y[-1]))) for line, _, y in lines]
    words = "; ".join(f"{name} from {first} to {last}" for name, _, _, first, last in legend)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}: {words}")}">',
        *(draw_rule(at_y(tick), format_number(tick)) for tick in ticks(low_y, high_y)),
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{unit} {_axis(low_x)}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{unit} {_axis(high_x)}</text>',
        *(_band(line, [at_x(value) for value in line.steps], at_y) for line, _, _ in lines if len(line.band[0])),
        *(_mark(mark, at_x(mark.step)) for mark in marks if low_x <= mark.step <= high_x),
        *(_line(line, [at_x(value) for value in x], [at_y(value) for value in y], " faint") for line, x, y in behind),
        *(_line(line, [at_x(value) for value in x], [at_y(value) for value in y]) for line, x, y in lines),
        "</svg>",
    ]
    return Chart(title, Markup("".join(parts)), legend)


def ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers between the bounds."""
    raw = (high - low) / 5
    power = 10 ** np.floor(np.log10(raw))
    step = float(power * next(size for size in (1, 2, 5, 10) if size * power >= raw * 0.999))
    first = int(np.ceil(low / step))
    return [float(f"{place * step:.6g}") for place in range(first, first + 7) if place * step <= high]


def _axis(value: float) -> str:
    return f"{value:g}" if value.is_integer() else format_number(value)


def _line(line: Series, x: Sequence[float], y: Sequence[float], faint: str = "") -> str:
    classes = f'class="line c{line.colour} d{0 if faint else line.dash}{faint}"'
    if len(x) == 1:
        return f'<circle {classes} cx="{x[0]:.1f}" cy="{y[0]:.1f}" r="2.5"/>'
    return f'<polyline {classes} points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))}"/>'


def _band(line: Series, x: Sequence[float], at_y: Place) -> str:
    low, high = ([at_y(value) for value in bound] for bound in line.band)
    edge = [*zip(x, low, strict=True), *reversed(list(zip(x, high, strict=True)))]
    return f'<polygon class="band c{line.colour}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in edge)}"/>'


def _mark(mark: ChartMark, x: float) -> str:
    side = ("end", -4) if x > (LEFT + WIDTH) / 2 else ("start", 4)
    return (
        f'<line class="ideal" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text x="{x + side[1]:.1f}" y="{HEIGHT - BOTTOM - 5}" text-anchor="{side[0]}">{escape(mark.words)}</text>'
    )


def draw_rule(y: float, label: str) -> str:
    """A horizontal line with its number."""
    return (
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>'
    )


def pad_bounds(low: float, high: float) -> tuple[float, float]:
    """Bounds with some padding, also for a constant."""
    spread = high - low
    if spread <= 1e-9 * max(abs(low), abs(high)):
        spread = (abs(low) or 1.0) * 4
    return low - 0.05 * spread, high + 0.05 * spread


def bin_points(steps: Sequence[float] | Sequence[int], values: Sequence[float] | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Finite points, averaged in at most POINTS bins."""
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) <= POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])
