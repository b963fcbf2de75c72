"""Rows held out for evaluation."""

from typing import NamedTuple

import numpy as np

from finegrain.data.store import ExampleStore
from finegrain.errors import DataError, UsageError

MOST_HELD_OUT = 256
FEWEST_HELD_OUT = 30
"""With fewer held-out rows, a mean and its interval are not informative [choice]."""


class Split(NamedTuple):
    """The rows of a source in two parts."""

    train: ExampleStore
    held: ExampleStore
    words: tuple[str, ...]
    """Warnings about the held-out rows."""


def split_holdout(examples: ExampleStore, share: float, seed: int, *, single_rows: bool = True) -> Split:
    """Holds out whole prompts, so that no prompt is in both parts; where no prompt is rare enough, single rows if `single_rows` allows it."""
    if not 0 <= share < 1:
        raise UsageError(f"--holdout must be a share of the rows in [0, 1), got {share}")
    own = examples.prompt_keys
    keys, counts = np.unique(own, return_counts=True)
    want = min(MOST_HELD_OUT, round(share * len(examples)))
    rng = np.random.default_rng([seed, 1])
    chosen: list[int] = []
    held = 0
    for place in rng.permutation(len(keys)):
        if held >= want:
            break
        if held + counts[place] <= max(want, 1):
            chosen.append(place)
            held += int(counts[place])
    if held == len(examples):
        raise DataError("all rows share one prompt, so no row would be left for training; set --eval or --holdout 0")
    apart = np.isin(own, keys[chosen])
    words: tuple[str, ...] = ()
    if want and not held and single_rows:
        apart = np.zeros(len(examples), bool)
        apart[rng.permutation(len(examples))[:want]] = True
        words = (
            f"hold-out: the {len(examples)} rows share {len(keys)} {'prompt' if len(keys) == 1 else 'prompts'}, each too common to be held out "
            f"whole, so {want} single rows are held out and their prompts are trained on too; set --eval for rows with other prompts",
        )
    return Split(examples.take(~apart), examples.take(apart), (*words, *warn_few(int(apart.sum()))))


def warn_few(rows: int) -> tuple[str, ...]:
    """A warning where there are too few held-out rows to measure anything."""
    if not 0 < rows < FEWEST_HELD_OUT:
        return ()
    return (f"hold-out: only {rows} held-out {'row' if rows == 1 else 'rows'}: means and intervals need at least {FEWEST_HELD_OUT}",)
