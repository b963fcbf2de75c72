"""Percentile bootstrap: repeats, stays within strata, says nothing where it knows nothing."""

import numpy as np
import pytest

from finegrain.errors import UsageError
from finegrain.ops import bootstrap
from finegrain.ops.bootstrap import Bootstrap


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(size=400)
    got = Bootstrap(resamples=4000)(lambda rows: float(values[rows].mean()), np.zeros(400, dtype=int))
    half = 1.96 * values.std() / 20
    assert got.mean == values.mean()
    assert got.low is not None
    assert got.high is not None
    np.testing.assert_allclose([got.low, got.high], [got.mean - half, got.mean + half], atol=0.1 * half)


def test_same_seed_same_interval() -> None:
    values = np.arange(30.0)
    together = np.zeros(30, dtype=int)
    first, again, other = (Bootstrap(seed=seed)(lambda rows: float(values[rows].mean()), together) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_strata_keep_their_sizes() -> None:
    strata = np.array([0] * 5 + [1] * 15)
    got = Bootstrap()(lambda rows: float(strata[rows].mean()), strata)
    assert (got.low, got.high) == (0.75, 0.75)
    assert Bootstrap()(lambda rows: float(strata[rows].mean()), 0 * strata).low != 0.75


def test_no_bounds_without_two_rows_or_with_an_undefined_resample() -> None:
    assert Bootstrap()(lambda rows: 2.0, np.zeros(1, dtype=int))[:3] == (2.0, None, None)
    values = np.array([0.0, 1.0])
    assert Bootstrap()(lambda rows: float(np.ptp(values[rows])) or float("nan"), np.zeros(2, dtype=int))[:3] == (1.0, None, None)


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="at least 100"):
        Bootstrap(resamples=10)
    with pytest.raises(UsageError, match="level"):
        Bootstrap(level=95.0)


def test_two_rows_are_enough_and_nothing_is_nothing() -> None:
    """Means of two rows 0 and 1 are 0, 1/2 and 1 with chances 1/4, 1/2, 1/4: the middle half lies between 0 and 1, all of it inside."""
    values = np.array([0.0, 1.0])
    got = Bootstrap(resamples=2000, level=0.9)(lambda rows: float(values[rows].mean()), np.zeros(2, dtype=int))
    assert got == (0.5, 0.0, 1.0, 2)
    narrow = Bootstrap(resamples=2000, level=0.3)(lambda rows: float(values[rows].mean()), np.zeros(2, dtype=int))
    assert narrow == (0.5, 0.5, 0.5, 2)
    assert Bootstrap()(lambda rows: 3.0, np.zeros(1, dtype=int)) == (3.0, None, None, 1)
    nothing = Bootstrap()(lambda rows: float(values[rows].mean()), np.zeros(0, dtype=int))
    assert np.isnan(nothing.mean)
    assert nothing[1:] == (None, None, 0)


def test_bounds_are_the_quantiles_of_the_draws() -> None:
    values, drawn = np.arange(10.0), []

    def mean(rows: np.ndarray) -> float:
        drawn.append(float(values[rows].mean()))
        return drawn[-1]

    got = Bootstrap(resamples=100, level=0.8)(mean, np.zeros(10, dtype=int))
    assert got == pytest.approx((4.5, *np.quantile(drawn[1:], [0.1, 0.9]), 10))
    assert len(drawn) == 101


def test_an_undefined_resample_leaves_the_value() -> None:
    values = np.array([0.0, 1.0])
    assert Bootstrap()(lambda rows: float(np.ptp(values[rows])) or float("nan"), np.zeros(2, dtype=int)) == (1.0, None, None, 2)


def test_levels_at_the_ends_are_refused() -> None:
    for level in (0.0, 1.0, 1.5):
        with pytest.raises(UsageError, match="level"):
            Bootstrap(level=level)
    assert Bootstrap(resamples=100).resamples == 100


@pytest.mark.parametrize("strata", [np.zeros(40, dtype=int), np.arange(40) % 3])
def test_numbers_of_many_draws_at_once_are_those_of_each(strata: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    values, shapes = np.random.default_rng(2).normal(size=40), []

    def means(draws: np.ndarray) -> np.ndarray:
        shapes.append(draws.shape)
        return values[draws].mean(axis=1)

    one_by_one = Bootstrap()(lambda rows: float(values[rows].mean()), strata)
    assert Bootstrap()(lambda rows: float(values[rows].mean()), strata, means) == one_by_one
    assert shapes == [(1000, 40)]
    monkeypatch.setattr(bootstrap, "AT_ONCE", 2400)
    assert Bootstrap()(lambda rows: float(values[rows].mean()), strata, means) == one_by_one
    assert shapes[1:] == [(60, 40)] * 16 + [(40, 40)]
