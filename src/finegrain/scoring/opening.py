"""Opens a reward by its source: the one way from settings to a `Reward`."""

import importlib
from collections.abc import Sequence

from finegrain.scoring.records import Reward
from finegrain.scoring.sources import RewardOptions, find_source


def open_reward(source: str | Sequence[str], options: RewardOptions) -> Reward:
    """The reward of a source as `scoring.sources` lists them; several sources are policies with one reference, scored as members of one reward."""
    sources = (source,) if isinstance(source, str) else tuple(source)
    module, _, name = find_source(sources[0], options).opens.partition(":")
    reward: Reward = getattr(importlib.import_module(f"finegrain.{module}"), name)(sources, options)
    return reward
