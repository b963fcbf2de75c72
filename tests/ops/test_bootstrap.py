"""Percentile bootstrap: repeats, stays within strata, says nothing where it knows nothing."""

import numpy as np
import pytest

from finegrain.errors import UsageError
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
    with pytest.raises(UsageError, match="probability"):
        Bootstrap(level=95.0)
