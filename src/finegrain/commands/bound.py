"""Settings of `finegrain reward bound`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from finegrain.checked import NonNegativeFloat, PositiveInt, Range, Seed, checked
from finegrain.commands.settings import Compute
from finegrain.rewards.clipped_head import FitBounds, Keep, SameScores


@dataclass(frozen=True, kw_only=True)
@checked
class BoundSettings(Compute):
    """Fit bounds of the features that a reward model reads, on clean pairs; `finegrain score` and `eval` then clip, and flag unusual answers."""

    run: Path
    """A reward model read at the last token: the folder that `finegrain reward` wrote, or a checkpoint of one label."""
    data: str
    """A few hundred clean pairs, balanced over domains: json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name;
    several as "A + B"."""
    keep: Keep = field(default_factory=SameScores)
    """What clipping preserves on clean pairs: their scores (same-scores, MMAC), or their labels (same-labels, MMOM), which may change scores."""
    fit: FitBounds = field(default_factory=FitBounds)
    deviations: NonNegativeFloat = 2.576
    """An answer is flagged if clipping lowers its score by more than the mean plus this many standard deviations, both over clean answers."""
    holdout: Annotated[float, Range(0.0, 1.0, low_open=True, high_open=True)] = 0.2
    """Share of the pairs (at most 256, whole prompts) that the bounds are evaluated on instead of fitted on."""
    micro_tokens: PositiveInt = 2048
    """Tokens of one forward pass."""
    seed: Seed = 0
    """Of the choice of held-out pairs."""
