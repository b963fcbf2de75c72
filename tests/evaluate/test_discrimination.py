"""Areas under curves: worked values, loops, and what the intervals promise."""

import math

import numpy as np
import pytest

from finegrain.errors import DataError
from finegrain.evaluate.discrimination import auroc, average_precision, mistakes_found, precision
from finegrain.ops.bootstrap import Bootstrap


def test_worked_area_with_a_tie() -> None:
    """Positives 3 and 1, negatives 2 and 1: of four comparisons 1 + 1 + 0 + 1/2."""
    got = auroc(np.array([3.0, 1.0, 2.0, 1.0]), np.array([True, True, False, False]))
    assert got.mean == 2.5 / 4
    assert got.rows == 4


def delong(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Area and DeLong's variance by loops over pairs."""
    good, bad = scores[positive], scores[~positive]
    psi = [[1.0 if a > b else 0.5 if a == b else 0.0 for b in bad] for a in good]
    rows = [sum(row) / len(bad) for row in psi]
    columns = [sum(row[j] for row in psi) / len(good) for j in range(len(bad))]
    area = sum(rows) / len(rows)
    spread = lambda values: sum((v - area) ** 2 for v in values) / (len(values) - 1) / len(values)
    return area, spread(rows) + spread(columns)


def test_equals_the_loops() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores, positive = generator.integers(0, 6, size=25).astype(float), generator.random(25) < 0.4
        area, variance = delong(scores, positive)
        got = auroc(scores, positive)
        assert got.low is not None
        assert got.high is not None
        half = 1.959963984540054 * variance**0.5
        np.testing.assert_allclose(got[:3], [area, max(0, area - half), min(1, area + half)], atol=1e-12)


def test_perfect_order_is_bounded_by_disjoint_pairs() -> None:
    """Ten pairs in order happen with probability area^10 at least: 1 in 40 at the bound."""
    scores, positive = np.arange(25.0), np.arange(25) >= 15
    got = auroc(scores, positive)
    assert got.mean == got.high == 1.0
    assert got.low is not None
    assert math.isclose(got.low**10, 0.025)
    reverse = auroc(-scores, positive)
    assert reverse[:2] == (0.0, 0.0)
    assert reverse.high is not None
    assert math.isclose(reverse.high, 1 - got.low)


def test_covers() -> None:
    """Normal scores one standard deviation apart have area Phi(1 / sqrt 2) = 0.7602; 1000 draws of 30 and 60."""
    generator = np.random.default_rng(0)
    positive = np.arange(90) < 30
    held = 0
    for _ in range(1000):
        low, high = auroc(generator.normal(size=90) + positive, positive)[1:3]
        assert low is not None
        assert high is not None
        held += low <= 0.760249938906523 <= high
    assert held > 915


def test_a_kind_that_is_missing_or_alone() -> None:
    assert math.isnan(auroc(np.arange(3.0), np.ones(3, dtype=bool)).mean)
    assert auroc(np.arange(3.0), np.array([False, False, True]))[:3] == (1.0, None, None)
    assert math.isnan(average_precision(np.arange(3.0), np.zeros(3, dtype=bool)).mean)


def test_worked_average_precision() -> None:
    """Order 4+ 3- 2+ 1-: precision at the positives 1 and 2/3; with a tie of the middle two 1/1 and 2/3 as well, with all tied the share."""
    positive = np.array([True, False, True, False])
    assert math.isclose(precision(np.array([4.0, 3.0, 2.0, 1.0]), positive), (1 + 2 / 3) / 2)
    assert math.isclose(precision(np.array([4.0, 2.0, 2.0, 1.0]), positive), (1 + 2 / 3) / 2)
    assert math.isclose(precision(np.array([1.0, 2.0, 1.0, 0.0]), positive), 2 / 3)
    assert precision(np.zeros(4), positive) == 0.5


def test_average_precision_does_not_see_the_order_of_rows_or_the_unit() -> None:
    generator = np.random.default_rng(0)
    scores, positive = generator.integers(0, 5, size=40).astype(float), generator.random(40) < 0.3
    order = generator.permutation(40)
    want = precision(scores, positive)
    assert math.isclose(precision(scores[order], positive[order]), want)
    assert math.isclose(precision(np.exp(scores), positive), want)
    got = average_precision(scores, positive)
    assert got.mean == want
    assert got.low is not None
    assert got.high is not None
    assert got.low < want < got.high


def test_uncertainty_finds_mistakes() -> None:
    correct = np.array([True, True, False, False])
    assert mistakes_found(correct, np.array([0.1, 0.2, 0.8, 0.9])).mean == 1
    assert mistakes_found(correct, np.array([0.9, 0.8, 0.2, 0.1])).mean == 0


def test_the_interval_is_as_wide_as_it_is_asked_to_be() -> None:
    generator = np.random.default_rng(0)
    correct, uncertainty = generator.random(30) < 0.5, generator.normal(size=30)
    wide, narrow = mistakes_found(correct, uncertainty), mistakes_found(correct, uncertainty, 0.5)
    assert wide == auroc(uncertainty, ~correct, 0.95)
    assert narrow == auroc(uncertainty, ~correct, 0.5)
    assert wide.low is not None
    assert narrow.low is not None
    assert wide.low < narrow.low
    in_order = auroc(np.arange(4.0), np.arange(4) > 1, 0.9)
    assert in_order.low == pytest.approx(0.05**0.5), "two disjoint pairs"
    assert auroc(np.arange(5.0), np.arange(5) > 1, 0.9).low == pytest.approx(0.05**0.5), "the rarer kind counts"


def test_two_of_a_kind_have_bounds() -> None:
    assert auroc(np.array([3.0, 1.0, 2.0, 1.0]), np.array([True, True, False, False])).low is not None
    assert auroc(np.array([3.0, 1.0, 2.0]), np.array([True, True, False]))[:3] == (0.5, None, None)
    assert auroc(np.array([3.0, 1.0, 2.0]), np.array([True, True, False])).rows == 3


def test_rows_and_bounds_of_what_is_missing() -> None:
    for measure in (auroc, average_precision):
        found = measure(np.arange(3.0), np.zeros(3, dtype=bool))
        assert found[1:] == (None, None, 3)
    assert auroc(np.arange(4.0), np.arange(4) > 1)[2:] == (1.0, 4)
    assert auroc(-np.arange(4.0), np.arange(4) > 1)[3] == 4


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 3"):
        auroc(np.array([0.0, np.nan, 1.0]), np.array([True, False, True]))


def test_bounds_stay_in_the_range_of_an_area() -> None:
    """Of nine comparisons eight: DeLong's interval goes beyond 1, and beyond 0 in reverse."""
    scores, positive = np.arange(6.0), np.array([False, False, True, False, True, True])
    area, variance = delong(scores, positive)
    assert area == 8 / 9 > 1 - 1.96 * variance**0.5
    assert auroc(scores, positive)[0::2] == (pytest.approx(8 / 9), 1.0)
    assert auroc(-scores, positive)[0:2] == (pytest.approx(1 / 9), 0.0)


def test_average_precision_draws_within_the_kinds() -> None:
    """One positive of three is in every draw, so every draw has a number, and the bootstrap that is given is taken."""
    scores, positive = np.array([3.0, 2.0, 1.0]), np.array([False, True, False])
    got = average_precision(scores, positive, Bootstrap(resamples=100))
    assert got.mean == 0.5
    assert got.rows == 3
    assert got.low is not None
    assert got.high is not None
    assert 1 / 3 <= got.low <= got.high <= 1.0
