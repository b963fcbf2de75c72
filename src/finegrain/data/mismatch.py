"""Answers to other prompts, for objectives that estimate a KL from them (KTO)."""

import numpy as np

from finegrain.data.store import ExampleStore
from finegrain.errors import DataError


def add_mismatched(examples: ExampleStore) -> ExampleStore:
    """Every example with the role `mismatched`: the answer of the next example, in data order, that has another prompt.

    Depends on the data alone, so that reference values of mismatched answers can be cached across epochs and seeds.
    """
    keys = examples.prompt_text_keys
    last_of_run = np.flatnonzero(keys != np.roll(keys, -1))
    if not len(last_of_run):
        raise DataError("all rows share one prompt, so there are no mismatched answers; this objective needs several prompts")
    run = np.searchsorted(last_of_run, np.arange(len(keys))) % len(last_of_run)
    return examples.lend("answer", (last_of_run[run] + 1) % len(keys), "mismatched")
