"""Intervals of shares: against scipy, at the ends, and what they promise over many draws."""

import math

import numpy as np
import pytest
from scipy import stats

from finegrain.ops.proportions import WeightedShare, combine_shares, wilson
from finegrain.ops.stats import Interval


@pytest.mark.parametrize(("right", "rows"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (333, 1000)])
def test_wilson_is_scipys(right: int, rows: int) -> None:
    want = stats.binomtest(right, rows).proportion_ci(0.9, method="wilson")
    got = wilson([1.0] * right + [0.0] * (rows - right), level=0.9)
    assert (got.mean, got.rows) == (right / rows, rows)
    np.testing.assert_allclose([got.low, got.high], [want.low, want.high], rtol=0, atol=1e-12)


def test_nothing_has_no_interval() -> None:
    got = wilson([])
    assert math.isnan(got.mean)
    assert (got.low, got.high, got.rows) == (None, None, 0)


def test_worked_mean_of_two_shares() -> None:
    parts = [WeightedShare(3.0, Interval(0.8, 0.7, 0.88, 50)), WeightedShare(1.0, Interval(0.4, 0.1, 0.8, 10))]
    got = combine_shares(parts)
    assert got.rows == 60
    np.testing.assert_allclose(got[:3], [0.7, 0.7 - math.hypot(0.075, 0.075), 0.7 + math.hypot(0.06, 0.1)], atol=1e-12)
    np.testing.assert_allclose(combine_shares([WeightedShare(10 * weight, share) for weight, share in parts])[:3], got[:3], atol=1e-12)


def test_one_part_is_itself_and_an_unknown_part_leaves_no_interval() -> None:
    share = Interval(0.3, 0.2, 0.5, 9)
    np.testing.assert_allclose(combine_shares([WeightedShare(2.0, share)]), share, atol=1e-12)
    assert combine_shares([WeightedShare(1.0, share), WeightedShare(1.0, Interval(0.5, None, None, 0))]) == Interval(0.4, None, None, 9)
    assert math.isnan(combine_shares([]).mean)


def test_covers() -> None:
    """Of 2000 simulated results about 95 % hold the truth: never under 93 % (4 standard errors), also where a part is nearly perfect."""
    generator = np.random.default_rng(0)
    shares, rows, weights = np.array([0.97, 0.7, 0.4]), [40, 30, 100], [2.0, 2.0, 1.0]
    truth = float(np.average(shares, weights=weights))
    held = 0
    for _ in range(2000):
        drawn = [wilson((generator.random(n) < share).astype(float)) for share, n in zip(shares, rows, strict=True)]
        low, high = combine_shares([WeightedShare(w, share) for w, share in zip(weights, drawn, strict=True)])[1:3]
        assert low is not None
        assert high is not None
        held += low <= truth <= high
    assert held / 2000 > 0.93


def test_wilson_by_hand_at_95() -> None:
    """1 of 4: z = 1.959964, centre (.25 + z^2/8) / (1 + z^2/4), half z / (1 + z^2/4) sqrt(.1875/4 + z^2/64)."""
    got, z = wilson([1.0, 0.0, 0.0, 0.0]), 1.959963984540054
    centre, half = (0.25 + z * z / 8) / (1 + z * z / 4), z / (1 + z * z / 4) * math.sqrt(0.1875 / 4 + z * z / 64)
    np.testing.assert_allclose([*got], [0.25, centre - half, centre + half, 4], rtol=1e-12)


def test_a_mean_without_weight_or_with_one_open_end_has_no_interval() -> None:
    share = Interval(0.3, 0.2, 0.5, 9)
    for parts in ([], [WeightedShare(0.0, share)], [WeightedShare(1.0, share), WeightedShare(-1.0, share)]):
        got = combine_shares(parts)
        assert math.isnan(got.mean)
        assert got[1:] == (None, None, 0)
    for low, high in ((0.2, None), (None, 0.5)):
        assert combine_shares([WeightedShare(1.0, Interval(0.3, low, high, 9))]) == (0.3, None, None, 9)
