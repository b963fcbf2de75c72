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


@dataclass(frozen=True)
class Chart:
    """A drawing with title, legend and a text description of the last values."""

    title: str
    svg: Markup
    legend: Sequence[tuple[str, int, int, str, str]]
    """Name, colour, dash, first and last value."""


def draw_chart(title: str, series: Sequence[Series]) -> Chart | None:
    """A chart of the series that have a finite value; None where none has."""
    lines = [(line, *_binned(line)) for line in series]
    lines = [(line, x, y) for line, x, y in lines if len(x)]
    if not lines:
        return None
    low_x, high_x = min(float(x.min()) for _, x, _ in lines), max(float(x.max()) for _, x, _ in lines)
    low_y, high_y = pad_bounds(min(float(y.min()) for _, _, y in lines), max(float(y.max()) for _, _, y in lines))
    at_x: Place = lambda value: LEFT + (value - low_x) / max(high_x - low_x, 1e-12) * (WIDTH - LEFT - RIGHT)
    at_y: Place = lambda value: HEIGHT - BOTTOM - (value - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)
    legend = [(line.name, line.colour, line.dash, format_number(float(y[0])), format_number(float(y[-1]))) for line, _, y in lines]
    words = "; ".join(f"{name} from {first} to {last}" for name, _, _, first, last in legend)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}: {words}")}">',
        *(draw_rule(at_y(tick), format_number(tick)) for tick in ticks(low_y, high_y)),
        f'<text x="{LEFT}" y="{HEIGHT - 8}">step {low_x:g}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">step {high_x:g}</text>',
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


def _line(line: Series, x: Sequence[float], y: Sequence[float]) -> str:
    classes = f'class="line c{line.colour} d{line.dash}"'
    if len(x) == 1:
        return f'<circle {classes} cx="{x[0]:.1f}" cy="{y[0]:.1f}" r="2.5"/>'
    return f'<polyline {classes} points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))}"/>'


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
        spread = max(abs(low), 1.0) * 0.2
    return low - 0.05 * spread, high + 0.05 * spread


def _binned(line: Series) -> tuple[np.ndarray, np.ndarray]:
    """Finite points, averaged in at most POINTS bins."""
    x, y = np.asarray(line.steps, dtype=float), np.asarray(line.values, dtype=float)
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) <= POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])
