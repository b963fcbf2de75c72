"""A minimal edit of one token sequence into another: which tokens are kept, and which are changed on either side.

Source: Levenshtein 1966; Wagner and Fischer 1974 (insertion, deletion and substitution cost 1 each).
Deviations: of several minimal edits the one found from the end is used, preferring a kept token to a changed one.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer


class Edit(NamedTuple):
    """The difference of two sequences."""

    distance: int
    """Insertions, deletions and substitutions."""
    first: Bool[np.ndarray, " N"]
    """True on tokens of the first sequence that were deleted or substituted."""
    second: Bool[np.ndarray, " M"]
    """True on tokens of the second one that were inserted or substituted."""


def least_edit(first: Integer[np.ndarray, " N"], second: Integer[np.ndarray, " M"]) -> Edit:
    """The edit; N times M steps between the first and the last difference, one row at a time."""
    shorter = min(len(first), len(second))
    head = _common(first[:shorter], second[:shorter])
    tail = _common(first[::-1][: shorter - head], second[::-1][: shorter - head])
    inner = first[head : len(first) - tail], second[head : len(second) - tail]
    costs = _costs(*inner)
    changed = np.zeros(len(first), dtype=bool), np.zeros(len(second), dtype=bool)
    for whole, part in zip(changed, _changed(costs, *inner), strict=True):
        whole[head : len(whole) - tail] = part
    return Edit(int(costs[-1, -1]), *changed)


def _common(first: np.ndarray, second: np.ndarray) -> int:
    """Length of the common start of two sequences of equal length."""
    differ = np.flatnonzero(first != second)
    return int(differ[0]) if len(differ) else len(first)


def _costs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N + 1, M + 1) minimal costs from every prefix of the first to every prefix of the second."""
    place = np.arange(len(second) + 1)
    costs = np.zeros((len(first) + 1, len(second) + 1), dtype=np.int64)
    costs[0] = place
    for row, token in enumerate(first):
        above = costs[row]
        best = above + 1
        best[1:] = np.minimum(best[1:], above[:-1] + (second != token))
        costs[row + 1] = np.minimum.accumulate(best - place) + place  # insertions: from any position to the left, cost 1 per step
    return costs


def _changed(costs: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that a walk from the end back to the start does not keep."""
    stay = np.ones(len(first), dtype=bool), np.ones(len(second), dtype=bool)
    n, m = len(first), len(second)
    while n and m:
        if first[n - 1] == second[m - 1] and costs[n, m] == costs[n - 1, m - 1]:
            stay[0][n - 1] = stay[1][m - 1] = False
            n, m = n - 1, m - 1
        elif costs[n, m] == costs[n - 1, m - 1] + 1:
            n, m = n - 1, m - 1
        elif costs[n, m] == costs[n - 1, m] + 1:
            n -= 1
        else:
            m -= 1
    return stay
