"""Calibration: worked bins, honest and dishonest models."""

import math

import numpy as np
import pytest

from finegrain.errors import DataError, UsageError
from finegrain.evaluate.calibration import EqualCount, EqualWidth, calibration_errors, event_calibration, pair_calibration, preference_probability
from finegrain.ops.bootstrap import Bootstrap


def test_worked_events() -> None:
    """Bins of a half: [0.2, 0.4] one of two happened, [0.9] it did not: (2 |0.5 - 0.3| + |0 - 0.9|) / 3."""
    got = event_calibration(np.array([0.2, 0.4, 0.9]), np.array([False, True, False]), EqualWidth(bins=2, low=0.0))
    assert math.isclose(got.error.mean, (2 * 0.2 + 0.9) / 3)
    assert [(round(bin.confidence, 12), bin.accuracy.mean, bin.accuracy.rows) for bin in got.bins] == [(0.3, 0.5, 2), (0.9, 0.0, 1)]
    assert math.isclose(got.negative_log_likelihood.mean, -(math.log(0.8) + math.log(0.4) + math.log(0.1)) / 3)
    assert math.isclose(got.brier.mean, (0.04 + 0.36 + 0.81) / 3)


def test_worked_pairs() -> None:
    """Differences log 3, -log 3, 0: confidences 3/4, 3/4, 1/2; right 1, 0, half."""
    chosen = np.array([math.log(3), 0.0, 1.0])
    rejected = np.array([0.0, math.log(3), 1.0])
    np.testing.assert_allclose(preference_probability(chosen, rejected), [0.75, 0.25, 0.5])
    got = pair_calibration(chosen, rejected)
    assert math.isclose(got.error.mean, 2 * 0.25 / 3)
    assert [bin.accuracy.mean for bin in got.bins] == [0.5, 0.5]
    assert math.isclose(got.negative_log_likelihood.mean, -(math.log(0.75) + math.log(0.25) + math.log(0.5)) / 3)
    assert math.isclose(got.brier.mean, (0.0625 + 0.5625 + 0.25) / 3)
    assert math.isclose(pair_calibration(chosen[:1], rejected[:1]).brier.mean, 0.0625)


def draw(scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of pairs whose labels follow sigma(true difference), scored `scale` times too large."""
    generator = np.random.default_rng(0)
    difference = generator.normal(size=5000)
    wins = generator.random(5000) < preference_probability(difference, np.zeros(5000))
    return scale * np.where(wins, difference, -difference), np.zeros(5000)


@pytest.mark.parametrize("binning", [EqualWidth(), EqualCount()])
def test_an_honest_model_has_little_error_and_an_overconfident_one_much(binning: EqualWidth | EqualCount) -> None:
    honest, loud = (pair_calibration(*draw(scale), binning) for scale in (1.0, 4.0))
    assert honest.error.mean < 0.03
    assert loud.error.low is not None
    assert loud.error.low > 0.15
    assert loud.negative_log_likelihood.mean > honest.negative_log_likelihood.mean
    assert loud.brier.mean > honest.brier.mean


def test_large_differences_stay_finite() -> None:
    got = pair_calibration(np.array([1e4, -1e4]), np.zeros(2))
    assert got.negative_log_likelihood.mean == 5000
    assert math.isclose(got.error.mean, 0.5)


def test_a_certain_miss_is_not_hidden() -> None:
    got = event_calibration(np.array([1.0, 0.5]), np.array([False, True]))
    assert got.negative_log_likelihood[:3] == (math.inf, None, None)


def test_bins() -> None:
    assert EqualWidth(bins=4)(np.array([0.5, 0.624, 0.625, 0.99, 1.0])).tolist() == [0, 0, 1, 3, 3]
    assert EqualCount(bins=2)(np.array([0.9, 0.5, 0.6, 0.8])).tolist() == [1, 0, 0, 1]
    assert len(set(EqualCount(bins=3)(np.full(9, 0.7)).tolist())) == 1, "rows of equal confidence stay together"
    assert EqualCount()(np.array([])).tolist() == []


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        EqualCount(bins=0)
    with pytest.raises(UsageError, match="low must be"):
        EqualWidth(low=1.0)
    with pytest.raises(DataError, match="sigmoid"):
        event_calibration(np.array([1.2]), np.array([True]))
    with pytest.raises(DataError, match="finite"):
        pair_calibration(np.array([np.nan]), np.zeros(1))


def test_bins_at_their_bounds() -> None:
    """One bin is enough, confidence below the lowest is in the first, and events are binned from 0 on."""
    assert EqualWidth(bins=1)(np.array([0.5, 0.9, 1.0])).tolist() == EqualCount(bins=1)(np.array([0.5, 0.9, 1.0])).tolist() == [0, 0, 0]
    assert EqualWidth(bins=4)(np.array([0.1, 0.6])).tolist() == [0, 0]
    for make in (EqualWidth, EqualCount):
        with pytest.raises(UsageError, match="at least 1, got 0"):
            make(bins=0)
    got = event_calibration(np.array([0.0, 0.05, 0.15, 0.95]), np.array([False, False, True, True]))
    assert [(bin.confidence, bin.accuracy.rows) for bin in got.bins] == [(0.025, 2), (0.15, 1), (0.95, 1)]
    assert math.isclose(got.error.mean, (0.05 + 0.85 + 0.05) / 4)
    with pytest.raises(DataError, match="sigmoid"):
        event_calibration(np.array([-0.1]), np.array([True]))


def test_the_binning_that_is_given_is_taken() -> None:
    chosen, rejected = np.array([0.1, 3.0, 0.2, 5.0]), np.zeros(4)
    assert [bin.accuracy.rows for bin in pair_calibration(chosen, rejected, EqualCount(bins=2)).bins] == [2, 2]
    assert [bin.accuracy.rows for bin in pair_calibration(chosen, rejected, EqualWidth(bins=1)).bins] == [4]
    assert [bin.accuracy.rows for bin in event_calibration(np.array([0.1, 0.9]), np.array([True, False]), EqualWidth(bins=1, low=0.0)).bins] == [2]


def test_intervals_are_over_rows() -> None:
    got = pair_calibration(*draw(4.0))
    for share in (got.error, got.negative_log_likelihood, got.brier):
        assert share.low is not None
        assert share.high is not None
        assert share.low < share.mean < share.high
        assert share.rows == 5000
    miss = event_calibration(np.array([1.0, 0.5]), np.array([False, True]))
    assert miss.negative_log_likelihood.rows == 2
    assert miss.brier.mean == (1.0 + 0.25) / 2


@pytest.mark.parametrize("rows", [3, 25])
def test_the_interval_of_the_error_is_that_of_every_draw_alone(rows: int) -> None:
    """To the last bit: sums over bins depend on how many bins a draw reaches."""
    sure, happened = np.random.default_rng(4).random(rows), np.random.default_rng(5).random(rows) > 0.5
    place, gap = EqualWidth(bins=11, low=0.0)(sure), happened - sure
    alone = lambda drawn: float(np.abs(np.bincount(place[drawn], weights=gap[drawn])).sum() / len(drawn))
    assert event_calibration(sure, happened, EqualWidth(bins=11, low=0.0)).error == Bootstrap()(alone, np.zeros(rows, dtype=int))


def test_the_error_of_a_draw_is_added_up_over_the_bins_it_reaches() -> None:
    """To the last bit: eight numbers are added up in another order than seven, so an empty bin behind the last changes the sum."""
    place, gap = np.array([np.arange(7), np.arange(7) + 2]), np.random.default_rng(0).normal(size=(40, 2, 7))
    for one in gap:
        alone = [np.abs(np.bincount(bins, weights=weights)).sum() / 7 for bins, weights in zip(place, one, strict=True)]
        assert calibration_errors(place, one).tolist() == alone
