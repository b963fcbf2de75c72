"""Means with their intervals, by the table of Student's t."""

import math

import pytest

from finegrain.ops.stats import mean_interval


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
