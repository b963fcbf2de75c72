"""Numbers formatted for reading: few digits, a sign where it matters, an interval or the reason for none."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from finegrain.diagnose.groups import FEWEST_ROWS
from finegrain.ops.stats import Interval
from finegrain.report.visible import clip_text

MINUS = "\u2212"


MOST_OF_A_REASON = 200
"""Maximum number of characters of a recorded reason."""


class Shown(NamedTuple):
    """One number of the page."""

    name: str
    value: str
    interval: str
    """The 95 % interval and its number of rows, or the reason why there is none."""


def format_number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """A number with a few significant digits."""
    if not math.isfinite(value):
        return "unknown"
    size = abs(value)
    plain = size == 0 or 1e-3 <= size < 10**digits - 0.5
    text = f"{value:.{digits}g}" if plain else f"{value:.0f}" if 1 <= size < 1e6 else _scientific(value, digits)
    return (("+" if signed and value > 0 else "") + text).replace("-", MINUS)


def _scientific(value: float, digits: int) -> str:
    """1.07e-5, without trailing zeros."""
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def format_percent(value: float) -> str:
    """A share."""
    return "unknown" if not math.isfinite(value) else f"{100 * value:.3g} %"


def format_interval(name: str, interval: Interval, unit: str, *, over: str = "pairs", signed: bool = False, share: bool = False) -> Shown:
    """A mean and its interval."""
    write = format_percent if share else lambda value: format_number(value, signed=signed)
    unit = "" if share or not unit else f" {unit}"
    value = f"{write(interval.mean)}{unit}" if math.isfinite(interval.mean) else "unknown"
    if interval.low is None or interval.high is None:
        reason = f"{interval.rows} {over}: too few for an interval" if interval.rows < FEWEST_ROWS else "the bootstrap found no bounds"
        return Shown(name, value, f"no interval: {reason}")
    return Shown(name, value, f"{write(interval.low)} to {write(interval.high)}, {interval.rows} {over}")


def format_recorded(name: str, value: Any, reason: str) -> Shown:
    """A number of run.json, with its interval where one was recorded."""
    if isinstance(value, Mapping) and "mean" in value:
        mean, low, high, rows = (value.get(key) for key in ("mean", "low", "high", "rows"))
        if isinstance(mean, (int, float)) and isinstance(low, (int, float)) and isinstance(high, (int, float)):
            return Shown(name, format_number(float(mean)), f"{format_number(float(low))} to {format_number(float(high))}, {rows} rows")
        why = value.get("reason")
        shown = format_number(float(mean)) if isinstance(mean, (int, float)) else "none" if mean is None else str(mean)
        return Shown(name, shown, clip_text(why, MOST_OF_A_REASON) if isinstance(why, str) else f"no interval recorded, {rows} rows")
    shown = format_number(float(value)) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
    return Shown(name, shown, reason)
