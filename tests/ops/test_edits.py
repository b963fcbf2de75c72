"""Least edits against a recursion, and what stays the same on both sides."""

from functools import cache

import numpy as np

from finegrain.ops.edits import least_edit


def naive(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    @cache
    def cost(n: int, m: int) -> int:
        if not n or not m:
            return n + m
        return min(cost(n - 1, m) + 1, cost(n, m - 1) + 1, cost(n - 1, m - 1) + (a[n - 1] != b[m - 1]))

    return cost(len(a), len(b))


def changed(a: list[int], b: list[int]) -> tuple[int, list[int], list[int]]:
    edit = least_edit(np.array(a, dtype=np.int64), np.array(b, dtype=np.int64))
    return edit.distance, edit.first.nonzero()[0].tolist(), edit.second.nonzero()[0].tolist()


def test_by_hand() -> None:
    assert changed([1, 2, 3], [1, 9, 3]) == (1, [1], [1]), "substitution"
    assert changed([1, 2, 3], [1, 3]) == (1, [1], []), "deletion"
    assert changed([1, 3], [1, 2, 3]) == (1, [], [1]), "insertion"
    assert changed([1, 2], [1, 2]) == (0, [], [])
    assert changed([], [5, 6]) == (2, [], [0, 1])
    assert changed([1, 2, 3, 4], [2, 3, 4, 1]) == (2, [0], [3])
    assert changed([1, 1], [1]) in ((1, [0], []), (1, [1], []))


def test_against_the_recursion() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        a, b = (rng.integers(0, 3, rng.integers(0, 9)) for _ in range(2))
        edit, back = least_edit(a, b), least_edit(b, a)
        assert edit.distance == back.distance == naive(tuple(a.tolist()), tuple(b.tolist()))
        assert a[~edit.first].tolist() == b[~edit.second].tolist(), "what stays is the same text"
        assert max(edit.first.sum(), edit.second.sum()) <= edit.distance <= edit.first.sum() + edit.second.sum()
