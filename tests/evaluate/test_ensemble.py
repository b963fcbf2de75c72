"""Several scorers as one."""

import numpy as np
import pytest

from finegrain.errors import DataError
from finegrain.evaluate.ensemble import MeanMinusStd, MeanMinusVariance, MemberMean, MemberMinimum, combine_members, standardise


def test_worked() -> None:
    """Two members with scores 0 2 | 4 2 and 10 10 | 30 10: standardised 0.. over both sides."""
    chosen, rejected = np.array([[4.0, 2.0], [30.0, 10.0]]), np.array([[0.0, 2.0], [10.0, 10.0]])
    good, bad = standardise(chosen, rejected)
    np.testing.assert_allclose(good, [[2**0.5, 0.0], [3**0.5, -(3**-0.5)]])
    np.testing.assert_allclose(bad, [[-(2**0.5), 0.0], [-(3**-0.5), -(3**-0.5)]])
    np.testing.assert_allclose(MemberMean()(good), good.mean(0))
    np.testing.assert_allclose(MemberMinimum()(good), [2**0.5, -(3**-0.5)])
    np.testing.assert_allclose(MeanMinusStd(k=2.0)(good), good.mean(0) - abs(good[0] - good[1]))
    np.testing.assert_allclose(MeanMinusVariance(k=2.0)(good), good.mean(0) - (good[0] - good[1]) ** 2 / 2)
    np.testing.assert_array_equal(MeanMinusVariance(k=0.0)(good), MemberMean()(good))


def test_a_member_s_unit_and_zero_play_no_part() -> None:
    chosen, rejected = np.random.default_rng(0).normal(size=(2, 3, 20))
    scale, shift = np.array([[1.0], [100.0], [0.01]]), np.array([[0.0], [-5.0], [3.0]])
    for combiner in (MemberMean(), MemberMinimum(), MeanMinusStd(), MeanMinusVariance()):
        for got, want in zip(
            combine_members(scale * chosen + shift, scale * rejected + shift, combiner), combine_members(chosen, rejected, combiner), strict=True
        ):
            np.testing.assert_allclose(got, want, atol=1e-9)


def test_one_member_alone_is_itself_and_disagreement_costs() -> None:
    chosen, rejected = np.random.default_rng(0).normal(size=(2, 1, 20))
    for combiner in (MemberMinimum(), MeanMinusStd(), MeanMinusVariance()):
        np.testing.assert_allclose(combine_members(chosen, rejected, combiner)[0], combine_members(chosen, rejected, MemberMean())[0])
    several = np.random.default_rng(0).normal(size=(4, 20))
    assert (MeanMinusStd()(several) < MemberMean()(several)).all()


def test_bad_members() -> None:
    with pytest.raises(DataError, match="member 1"):
        standardise(np.array([[0.0, 1.0], [2.0, 2.0]]), np.array([[1.0, 1.0], [2.0, 2.0]]))
    with pytest.raises(DataError, match="finite"):
        standardise(np.array([[np.nan]]), np.array([[1.0]]))
