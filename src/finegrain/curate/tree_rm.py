"""Preference pairs from prefix trees: responses that branch from shared prefixes are compared with each other.

Source: Qiu et al. 2024, https://arxiv.org/abs/2402.10184, section 5 (tree-based generation of preference data).
Deviations: the paper's branching and temperature schedule were not read [choice]; a share of pairs diverges at the root [choice].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from finegrain.checked import PositiveFloat, PositiveInt, Share, checked
from finegrain.curate.tree import LeafPair, Sampler, Uniform, draw_pairs, find_distinct, leaf_pairs
from finegrain.errors import UsageError

Ids = tuple[int, ...]
Extend = Callable[[Sequence[Ids], bool, int], Sequence[tuple[Ids, bool]]]
"""(responses so far, whether to finish them, seed) -> the longer ones, and whether each has ended."""


@dataclass(frozen=True, kw_only=True)
@checked
class TreeRM:
    """Grow a tree of responses for every prompt and compare its leaves."""

    reward: str = ""
    """What labels the leaves: a reward model's folder, or a user's function file.py:name; without one no pairs are made."""
    depth: PositiveInt = 3
    """Number of segments of a response; at 1 responses are independent samples."""
    branching: PositiveInt = 2
    """Children per node: at most branching ** depth leaves."""
    pairs: PositiveInt = 8
    """Pairs per tree."""
    chain_fraction: Share = 0.2
    """Share of the pairs that diverge at the root, like independent responses."""
    sampler: Sampler = field(default_factory=Uniform)
    """How the other pairs are selected: uniform, by-depth, hardest."""
    segment_tokens: int = 32
    """Length of a segment; the branch point moves back to the last end of a sentence or line in it."""
    max_new_tokens: int = 256
    """Longest response."""
    first_temperature: PositiveFloat = 1.4
    """Temperature of the first `first_tokens` of a segment, so that siblings differ."""
    first_tokens: PositiveInt = 8
    temperature: PositiveFloat = 0.8
    """Temperature of the other tokens."""

    def __post_init__(self) -> None:
        if not self.first_tokens < self.segment_tokens < self.max_new_tokens:
            raise UsageError("expected first_tokens < segment_tokens < max_new_tokens")

    def grow(self, extend: Extend, seed: int) -> list[Ids]:
        """The distinct leaves, breadth first: every open response of a level is extended `branching` times in one call."""
        open_, leaves = list[Ids]([()]), list[Ids]()
        for level in range(self.depth):
            asked = [response for response in open_ for _ in range(self.branching)]
            found = extend(asked, level == self.depth - 1, seed * self.depth + level) if asked else []
            leaves += [response for response, ended in found if ended]
            open_ = list(dict.fromkeys(response for response, ended in found if not ended))
        leaves += open_
        return [leaves[place] for place in find_distinct(leaves)]

    def __call__(self, leaves: Sequence[Ids], draw: np.random.Generator) -> list[LeafPair]:
        """The pairs of one tree to label; empty for fewer than two leaves."""
        return draw_pairs(leaf_pairs(leaves), self.pairs, self.chain_fraction, self.sampler, draw)
