"""`finegrain compare`: how alike rewards of the same answers are, how far seeds of one agree, and whether the null control holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.checked import PositiveInt, Seed, checked
from finegrain.errors import UsageError
from finegrain.recipes.setup.new_file import check_free, write_new


@dataclass(frozen=True, kw_only=True)
@checked
class Compare:
    """Compare rewards by what `finegrain score` wrote of the same answers: with the first file, among the others, and against the null."""

    scores: tuple[Path, ...]
    """Score files of the same answers: first the reward to compare with, then one or more others, say seeds of a recovered reward."""
    null: Path | None = None
    """Score file of held-out pairs, both answers sampled from one policy, by a reward fitted to other such pairs: a fit that finds nothing."""
    out: Path | None = None
    """File for what is printed as JSON; it must not exist yet."""
    resamples: PositiveInt = 1000
    """Bootstrap draws of each interval."""
    seed: Seed = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if len(self.scores) < 2:
            raise UsageError(f"comparing needs two score files or more (finegrain score), first the reward to compare with; got {len(self.scores)}")
        if self.null in self.scores:
            raise UsageError(f"--null {self.null} is also compared; the null is a reward of its own, fitted to two samples of one policy")


def run_compare(settings: Compare) -> dict[str, Any]:
    """A table on stderr; returns its numbers, which also go to --out."""
    import json

    from finegrain.recipes.comparison.report import compared  # here, so that `--help` answers before the statistics load
    from finegrain.recipes.comparison.table import print_comparison

    if settings.out is not None:
        check_free(settings.out)
    result = compared(settings)
    print_comparison(result)
    if settings.out is not None:
        write_new(settings.out, [json.dumps(result, allow_nan=False) + "\n"])
    return {**result, "out": None if settings.out is None else str(settings.out)}
