"""Preference pairs from prefix trees: responses that branch from one another, compared with their relatives.

Source: Qiu et al. 2024, https://arxiv.org/abs/2402.10184, section 5 (tree-based generation of preference data).
Deviations: where branches start and how the temperature moves was not read [choice]; a share of pairs parts at the root [choice].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from finegrain.checked import checked
from finegrain.curate.tree import LeafPair, Sampler, Uniform, distinct, drawn, leaf_pairs
from finegrain.errors import UsageError

Ids = tuple[int, ...]
Extend = Callable[[Sequence[Ids], bool, int], Sequence[tuple[Ids, bool]]]
"""(responses so far, whether they are to be finished, seed) -> the longer ones, and whether each has ended."""


@dataclass(frozen=True, kw_only=True)
@checked
class TreeRM:
    """Grow a tree of responses for every prompt and compare its leaves."""

    reward: str = ""
    """What labels the leaves: a reward model's folder, or your own function file.py:name; without one there are no pairs."""
    depth: int = 3
    """Segments of a response; at 1 responses are independent samples."""
    branching: int = 2
    """Children of every node: branching ** depth leaves at most."""
    pairs: int = 8
    """Pairs per tree."""
    chain_fraction: float = 0.2
    """Share of the pairs that part at the root, as independent responses do."""
    sampler: Sampler = field(default_factory=Uniform)
    """Which of the other pairs: uniform, by-depth, hardest."""
    segment_tokens: int = 32
    """Length of a segment; the branch point moves back to the last sentence end or line end in it."""
    max_new_tokens: int = 256
    """Longest response."""
    first_temperature: float = 1.4
    """Of the first `first_tokens` of a segment, so that siblings differ."""
    first_tokens: int = 8
    temperature: float = 0.8
    """Of the others."""

    def __post_init__(self) -> None:
        if min(self.depth, self.branching, self.pairs, self.first_tokens) < 1 or not self.first_tokens < self.segment_tokens < self.max_new_tokens:
            raise UsageError("depth, branching, pairs and first_tokens are at least 1, and first_tokens < segment_tokens < max_new_tokens")
        if not 0 <= self.chain_fraction <= 1 or min(self.first_temperature, self.temperature) <= 0:
            raise UsageError("chain_fraction is a share in [0, 1], and temperatures are positive")

    def grow(self, extend: Extend, seed: int) -> list[Ids]:
        """The distinct leaves, breadth first: every open response of a level is extended `branching` times in one call."""
        open_, leaves = list[Ids]([()]), list[Ids]()
        for level in range(self.depth):
            asked = [response for response in open_ for _ in range(self.branching)]
            found = extend(asked, level == self.depth - 1, seed * self.depth + level) if asked else []
            leaves += [response for response, ended in found if ended]
            open_ = list(dict.fromkeys(response for response, ended in found if not ended))
        leaves += open_
        return [leaves[place] for place in distinct(leaves)]

    def __call__(self, leaves: Sequence[Ids], draw: np.random.Generator) -> list[LeafPair]:
        """The pairs of one tree that are to be labelled; none of fewer than two leaves."""
        return drawn(leaf_pairs(leaves), self.pairs, self.chain_fraction, self.sampler, draw)
