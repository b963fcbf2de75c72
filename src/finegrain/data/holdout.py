"""Rows kept apart for evaluation."""

import numpy as np

from finegrain.data.store import ExampleStore
from finegrain.errors import DataError, UsageError

MOST_HELD_OUT = 256


def split_holdout(examples: ExampleStore, share: float, seed: int) -> tuple[ExampleStore, ExampleStore]:
    """(training, held out): whole prompts are held out, so that no prompt stands on both sides."""
    if not 0 <= share < 1:
        raise UsageError(f"--holdout is a share of the rows in [0, 1), got {share}")
    own = examples.prompt_keys
    keys, counts = np.unique(own, return_counts=True)
    want = min(MOST_HELD_OUT, round(share * len(examples)))
    chosen: list[int] = []
    held = 0
    for place in np.random.default_rng([seed, 1]).permutation(len(keys)):
        if held >= want:
            break
        if held + counts[place] <= max(want, 1):
            chosen.append(place)
            held += int(counts[place])
    if held == len(examples):
        raise DataError("all rows share one prompt, so none would be left to train; give --eval or --holdout 0")
    apart = np.isin(own, keys[chosen])
    return examples.take(~apart), examples.take(apart)
