"""Dynamic top-k against worked numbers, its invariants and a loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.ops.peaks import dynamic_topk, order_left, peak_threshold


def loop(scores: list[float], q: float = 0.0) -> set[int]:
    """The rule, literally: strict peaks, edges, interior plateaus, then the threshold."""
    n, found = len(scores), set()
    if n < 2:
        return found
    for i in range(n):
        if i == 0 and scores[0] > scores[1]:
            found.add(0)
        if i == n - 1 and scores[-1] > scores[-2]:
            found.add(n - 1)
        if 0 < i < n - 1 and scores[i - 1] < scores[i] > scores[i + 1]:
            found.add(i)
        j = i
        while j + 1 < n and scores[j + 1] == scores[i]:
            j += 1
        if j > i and 0 < i and j < n - 1 and scores[i - 1] < scores[i] > scores[j + 1]:
            found.add(i + (j - i) // 2)
    threshold = np.mean(scores) - q * np.std(scores)
    return {i for i in found if scores[i] >= threshold}


def peaks(scores: list[float], q: float = 0.0) -> set[int]:
    values = torch.tensor([scores], dtype=torch.float64)
    return set(dynamic_topk(values, torch.ones_like(values).bool(), q)[0].nonzero().flatten().tolist())


@pytest.mark.parametrize(
    ("scores", "want"),
    [
        ([0.1, 0.5, 0.8, 0.2, 0.3, 0.1, 0.5, 0.6, 0.6, 0.1], {2, 7}),
        ([3, 1, 2, 2, 2, 0, 0, 1, 1, 0.5, 4], {0, 3, 10}),
        ([1.0, 1.0, 1.0], set()),
        ([1.0], set()),
        ([1.0, 2.0, 3.0], {2}),
        ([3.0, 2.0, 1.0], {0}),
        ([2.0, 2.0, 1.0], set()),
        ([1.0, 2.0, 2.0], set()),
    ],
)
def test_worked(scores: list[float], want: set[int]) -> None:
    assert peaks([float(score) for score in scores]) == want


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.sampled_from([0.0, -0.5, 0.75]))
@settings(max_examples=300, deadline=None)
def test_equals_the_loop(scores: list[int], q: float) -> None:
    """But for a score that is the threshold itself, where the last bit of either sum decides."""
    values = [float(score) for score in scores]
    threshold = np.mean(values) - q * np.std(values)
    assert all(abs(values[place] - threshold) < 1e-12 for place in peaks(values, q) ^ loop(values, q))


def test_invariants() -> None:
    values = torch.randn(200, 30, dtype=torch.float64)
    mask = torch.arange(30) < torch.randint(1, 31, (200, 1))
    chosen = dynamic_topk(values, mask)
    assert torch.equal(chosen, dynamic_topk(4.0 * values + 8.0, mask))
    assert not torch.equal(chosen, dynamic_topk(-values, mask))
    assert not bool((chosen & ~mask).any())
    assert not bool((chosen[:, 1:] & chosen[:, :-1]).any())
    assert bool((chosen.sum(1) <= (mask.sum(1) + 1) // 2).all())
    assert bool((values >= peak_threshold(values, mask).unsqueeze(1))[chosen].all())
    top = values.masked_fill(~mask, -torch.inf).argmax(1, keepdim=True)
    assert bool(chosen.gather(1, top)[mask.sum(1) > 1].all())


def test_what_is_off_the_mask_is_removed() -> None:
    values = torch.randn(50, 12, dtype=torch.float64)
    mask = torch.rand(50, 12) < 0.6
    mask[0] = False
    got = dynamic_topk(values, mask)
    for row in range(50):
        compact = values[row][mask[row]]
        want = loop(compact.tolist())
        assert set(got[row][mask[row]].nonzero().flatten().tolist()) == want
    assert torch.equal(got, dynamic_topk(values.masked_fill(~mask, torch.nan), mask))
    assert torch.equal(got, dynamic_topk(values.masked_fill(~mask, 1e30), mask))


def test_more_peaks_with_a_lower_threshold() -> None:
    values = torch.randn(1, 200, dtype=torch.float64)
    everywhere = torch.ones_like(values).bool()
    counts = [int(dynamic_topk(values, everywhere, q).sum()) for q in (-1.0, 0.0, 1.0)]
    assert counts[0] < counts[1] < counts[2]
    torch.testing.assert_close(peak_threshold(values, everywhere, 1.5)[0], values.mean() - 1.5 * values.std(correction=0))


def test_left_aligned_keeps_the_order() -> None:
    mask = torch.tensor([[False, True, False, True, True]])
    assert order_left(mask).tolist() == [[1, 3, 4, 0, 2]]


def test_the_threshold_of_an_answer_of_one_token_is_its_score() -> None:
    scores, mask = torch.tensor([[4.0, 9.0], [1.0, 3.0]]), torch.tensor([[True, False], [True, True]])
    assert peak_threshold(scores, mask).tolist() == [4.0, 2.0]
    assert peak_threshold(scores, mask, 0.5).tolist() == [4.0, 1.5]
