"""What `finegrain online --dry-run` shows: one buffer, its rewards, and how long the whole may take."""

import math

from finegrain.recipes.rollouts.source import OnlineSource
from finegrain.terminal import write_line
from finegrain.types import Json

SHOWN = 3
"""Answers."""


def describe_first_buffer(source: OnlineSource) -> Json:
    """Samples and scores the first buffer; nothing trains, nothing is written."""
    buffer = source.maker.make(0, [int(place) for place in source.plan.rows(0)], 1)
    for line in buffer.lines[:SHOWN]:
        write_line(f"\n> {line['prompt'][-300:].strip()}\n  {line['text'].strip()}\n  rewards {line['rewards']}, ended by {line['ended']}")
    seconds = sum(value for name, value in buffer.facts.items() if name.startswith("seconds/"))
    shown = {name: value for name, value in buffer.facts.items() if isinstance(value, (int, float)) and math.isfinite(value)}
    return {
        "status": "dry run",
        "buffers": len(source.plan),
        "updates": len(source),
        "answers": len(buffer.answers),
        "first_buffer": shown,
        "estimated_seconds_without_updates": round(seconds * len(source.plan), 1),
    }
