"""Means with their intervals, by the table of Student's t."""

import math

import numpy as np
import pytest
from scipy import stats

from finegrain.ops.stats import count_below, difference_interval, mean_interval, sum_of_ratios


def test_by_hand() -> None:
    """1, 2, 3, 6: mean 3, variance 14/3, t(0.975, 3) = 3.18244631."""
    got = mean_interval([1.0, 2.0, 3.0, 6.0])
    half = 3.1824463052842629 * math.sqrt(14 / 3) / 2
    assert got == pytest.approx((3.0, 3 - half, 3 + half, 4))


def test_the_level_is_of_both_sides() -> None:
    """Two values 0 and 2 at 50 %: t(0.75, 1) = 1, standard error 1."""
    assert mean_interval([0.0, 2.0], level=0.5) == pytest.approx((1.0, 0.0, 2.0, 2))


def test_fewer_than_two_values_have_no_interval() -> None:
    assert mean_interval([7.0]) == (7.0, None, None, 1)
    nothing = mean_interval([])
    assert math.isnan(nothing.mean)
    assert nothing[1:] == (None, None, 0)


def test_a_sum_of_ratios_by_hand() -> None:
    """2 * (1 + 5) / (1 + 2) + mean(1, 4): 4 + 2.5; linearised rows 2 (v - 2 c) 2 / 3 + (w - 2.5) are -17/6 and 17/6."""
    got = sum_of_ratios([(2.0, np.array([1.0, 5.0]), np.array([1.0, 2.0])), (1.0, np.array([1.0, 4.0]), np.ones(2))])
    half = 12.706204736432095 * (17 / 6) * math.sqrt(2) / math.sqrt(2)
    assert got == pytest.approx((6.5, 6.5 - half, 6.5 + half, 2))


def test_a_ratio_over_counts_of_one_is_a_mean() -> None:
    values = np.array([1.0, 2.0, 3.0, 6.0])
    assert sum_of_ratios([(1.0, values, np.ones(4))]) == pytest.approx(mean_interval(values))


def test_a_term_in_which_nothing_counts_is_zero() -> None:
    assert sum_of_ratios([(3.0, np.zeros(2), np.zeros(2)), (1.0, np.array([1.0, 1.0]), np.ones(2))]).mean == 1
    assert sum_of_ratios([]).rows == 0


def test_a_difference_as_scipy_has_it() -> None:
    one, other = [1.0, 3.0], [2.0, 4.0, 9.0]
    witness = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert difference_interval(one, other) == pytest.approx((-3, witness.low, witness.high, 5))
    assert math.isnan(difference_interval([], [1.0]).mean)
    assert difference_interval([1.0], [2.0, 3.0])[1:3] == (None, None)


def test_placements_are_those_of_ranks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, others = rng.integers(0, 6, 7).astype(float), rng.integers(0, 6, 9).astype(float)
        ranks = stats.rankdata(np.concatenate([values, others]))[: len(values)] - stats.rankdata(values)
        assert count_below(values, others).tolist() == ranks.tolist()
    assert np.isnan(count_below(np.array([1.0, np.nan]), np.array([0.0]))).all()
    assert np.isnan(count_below(np.array([1.0]), np.array([np.nan]))).all()
