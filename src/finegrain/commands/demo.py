"""Settings of `finegrain demo`."""

from dataclasses import dataclass
from pathlib import Path

from finegrain.checked import NonNegativeInt, PositiveInt, checked


@dataclass(frozen=True, kw_only=True)
@checked
class DemoSettings:
    """Align a tiny model on generated answers whose every sentence has a known quality, with and without token credit."""

    out: Path | None = None
    """Folder for data, runs, demo.json and demo.md; by default a new temporary one."""
    seeds: PositiveInt = 5
    """Independent repetitions: other qualities, pairs and orders."""
    workers: NonNegativeInt = 0
    """Processes, one thread each; 0 takes as many as there are cores."""
    quick: bool = False
    """A tiny version for trying out; its results say nothing about the methods."""
