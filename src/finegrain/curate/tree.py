"""Responses with shared prefixes: the common prefix of pairs, the selection of pairs to label, and the rows of labelled pairs.

Source: Qiu et al. 2024, https://arxiv.org/abs/2402.10184 (pairs of leaves of one prefix tree).
Deviations: the tree is derived from the responses themselves, so any set of responses to one prompt has one; samplers other than the
uniform one are [choice].
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from finegrain.errors import UsageError
from finegrain.types import Json

Items = Sequence[Hashable]
"""A response as tokens or as characters."""


class LeafPair(NamedTuple):
    """Two responses of one tree."""

    first: int
    second: int
    prefix: int
    """Length of the common prefix."""
    lca_depth: int
    """Branch points between the prompt and the one where they diverge; 0: they diverge at the root."""


def common_prefix(first: Items, second: Items) -> int:
    """Length of the common prefix."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


def find_distinct(responses: Sequence[Items]) -> list[int]:
    """Indices of the distinct responses, the first of each."""
    found: dict[tuple[Hashable, ...], int] = {}
    for place, response in enumerate(responses):
        found.setdefault(tuple(response), place)
    return list(found.values())


def leaf_pairs(responses: Sequence[Items]) -> list[LeafPair]:
    """All pairs of distinct responses; repeats are in none."""
    places = find_distinct(responses)
    shared = {pair: common_prefix(responses[pair[0]], responses[pair[1]]) for pair in combinations(places, 2)}
    branches: dict[int, set[int]] = {place: set() for place in places}
    for pair, length in shared.items():
        for place in pair:
            branches[place].add(length)
    return [LeafPair(*pair, length, sum(branch < length for branch in branches[pair[0]])) for pair, length in shared.items()]


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every pair of a tree is equally likely."""

    def __call__(self, pairs: Sequence[LeafPair], budget: int, draw: np.random.Generator) -> list[LeafPair]:
        """At most `budget` pairs, without repeats."""
        return [pairs[place] for place in draw.permutation(len(pairs))[:budget]]


@dataclass(frozen=True, kw_only=True)
class ByDepth:
    """Alternates between depths, deepest first, because close relatives are rare among all pairs."""

    def __call__(self, pairs: Sequence[LeafPair], budget: int, draw: np.random.Generator) -> list[LeafPair]:
        """At most `budget` pairs, without repeats."""
        shuffled = Uniform()(pairs, len(pairs), draw)
        turns: dict[int, int] = {}
        keyed = []
        for pair in shuffled:
            turn = turns[pair.lca_depth] = turns.get(pair.lca_depth, -1) + 1
            keyed.append((turn, -pair.lca_depth, pair))
        return [pair for _, _, pair in sorted(keyed, key=lambda one: one[:2])[:budget]]


@dataclass(frozen=True, kw_only=True)
class Hardest:
    """The pairs with the longest common prefix first: the finest distinctions."""

    def __call__(self, pairs: Sequence[LeafPair], budget: int, draw: np.random.Generator) -> list[LeafPair]:
        """At most `budget` pairs, without repeats."""
        return sorted(Uniform()(pairs, len(pairs), draw), key=lambda pair: -pair.prefix)[:budget]


Sampler = Uniform | ByDepth | Hardest


def draw_pairs(pairs: Sequence[LeafPair], budget: int, chain_fraction: float, sampler: Sampler, draw: np.random.Generator) -> list[LeafPair]:
    """`budget` pairs of a tree: a share that diverges at the root, like independent responses, the others by the sampler."""
    if not 0 <= chain_fraction <= 1:
        raise UsageError(f"chain_fraction must be a share in [0, 1], got {chain_fraction}")
    chain = Uniform()([pair for pair in pairs if pair.lca_depth == 0], round(chain_fraction * budget), draw)
    rest = [pair for pair in pairs if pair not in chain]
    return [*chain, *sampler(rest, budget - len(chain), draw)]


def saved_share(pair: LeafPair, responses: Sequence[Items]) -> float:
    """Share of the items of both responses that need not be read twice: the prefix."""
    total = len(responses[pair.first]) + len(responses[pair.second])
    return 2 * pair.prefix / total if total else 0.0


def make_preference_row(prompt: str, texts: Sequence[str], pair: LeafPair, scores: Sequence[float], *, tree: int) -> Json:
    """One row of the preference schema: the answer with the higher score is chosen, equal scores are a tie. `pair` has lengths in tokens."""
    better, worse = (pair.first, pair.second) if scores[pair.first] >= scores[pair.second] else (pair.second, pair.first)
    return {
        "prompt": prompt,
        "chosen": texts[better],
        "rejected": texts[worse],
        "tree_id": tree,
        "leaf_ids": [better, worse],
        "lca_depth": pair.lca_depth,
        "prefix_tokens": pair.prefix,
        "prefix_chars": common_prefix(texts[better], texts[worse]),
        "score_difference": scores[better] - scores[worse],
        "tie": int(scores[better] == scores[worse]),
    }
