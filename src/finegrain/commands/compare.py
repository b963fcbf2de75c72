"""Settings of `finegrain eval compare`."""

from dataclasses import dataclass
from pathlib import Path

from finegrain.checked import PositiveInt, Seed, checked
from finegrain.errors import UsageError


@dataclass(frozen=True, kw_only=True)
@checked
class CompareSettings:
    """Compare score files of the same answers: each with the first, the others among themselves, and each with a null control."""

    scores: tuple[Path, ...]
    """Score files of the same answers: first the reward to compare with, then one or more others, for example several seeds of one training."""
    null: Path | None = None
    """Score file of a null control: a reward trained on pairs whose two answers come from one policy, which carry no preference."""
    out: Path | None = None
    """File for the printed JSON; it must not exist yet."""
    resamples: PositiveInt = 1000
    """Bootstrap resamples of each interval."""
    seed: Seed = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if len(self.scores) < 2:
            raise UsageError(f"comparing needs two score files or more (finegrain score), first the reward to compare with; got {len(self.scores)}")
        if self.null in self.scores:
            raise UsageError(f"--null {self.null} is also compared; the null is a reward of its own, fitted to two samples of one policy")
