"""Settings of `finegrain reward bound`."""

from dataclasses import dataclass, field
from pathlib import Path

from finegrain.checked import NonNegativeFloat, PositiveInt, Seed, checked
from finegrain.commands.settings import Compute
from finegrain.errors import UsageError
from finegrain.rewards.clipped_head import FitBounds, Keep, SameScores


@dataclass(frozen=True, kw_only=True)
@checked
class BoundSettings(Compute):
    """Bound the features that a reward model's score reads, on clean pairs; `finegrain score` and `eval` then clip, and flag odd answers."""

    run: Path
    """A reward model read at the last token: the folder that `finegrain reward` wrote, or a checkpoint of one label."""
    data: str
    """A few hundred clean pairs, balanced over domains: json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name;
    several as "A + B"."""
    keep: Keep = field(default_factory=SameScores)
    """What of the clean pairs is to stay: same-scores (MMAC), or same-labels (MMOM), which may change scores."""
    fit: FitBounds = field(default_factory=FitBounds)
    deviations: NonNegativeFloat = 2.576
    """An answer is flagged where clipping takes more than the mean and this many standard deviations of what it takes from clean answers."""
    holdout: float = 0.2
    """Share of the pairs (at most 256, whole prompts) that bounds are not fitted on, but judged on."""
    micro_tokens: PositiveInt = 2048
    """Tokens of one forward pass."""
    seed: Seed = 0
    """Of the held-out pairs."""

    def __post_init__(self) -> None:
        if not 0 < self.holdout < 1:
            raise UsageError(f"--holdout is the share of the pairs that bounds are judged on, between 0 and 1, got {self.holdout}")
