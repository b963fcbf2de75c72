"""Comparing rewards: worked values, what each measure is blind to, and the null."""

import math

import numpy as np
import pytest

from finegrain.errors import DataError
from finegrain.evaluate.reward_comparison import (
    MEASURES,
    UNIT_FREE,
    canonicalise,
    compare,
    cosine,
    euclidean,
    kendall,
    null_holds,
    pearson,
    reward_distance,
    seed_agreement,
    sign_accuracy,
    sign_f1,
    spearman,
)
from finegrain.ops.bootstrap import Bootstrap


def test_worked() -> None:
    a, b = np.array([1.0, 2.0, -3.0, 0.5]), np.array([2.0, 1.0, -1.0, -2.0])
    assert math.isclose(euclidean(a, b), (1 + 1 + 4 + 6.25) ** 0.5)
    assert math.isclose(cosine(a, b), (2 + 2 + 3 - 1) / ((1 + 4 + 9 + 0.25) * (4 + 1 + 1 + 4)) ** 0.5)
    assert math.isclose(kendall(a, b), (4 - 2) / 6), "of six pairs two are swapped"
    assert math.isclose(spearman(a, b), 1 - 6 * (1 + 1 + 1 + 1) / (4 * 15))
    assert sign_accuracy(a, b) == 0.75
    assert math.isclose(sign_f1(a, b), 2 * 1 / (1 + 2))
    assert sign_f1(abs(a), abs(b)) == 0
    zero, low, high = (np.array([value]) for value in (0.0, -1.0, 1.0))
    for one, other, same in ((zero, low, 1), (zero, high, 0), (zero, zero, 1)):  # 0 is not above 0
        assert sign_accuracy(one, other) == sign_accuracy(other, one) == sign_f1(one, other) == sign_f1(other, one) == same


def test_what_a_unit_and_an_offset_change() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 60))
    for name, measure in MEASURES.items():
        same = math.isclose(measure(a, 3 * b + 0.4), measure(a, b), abs_tol=1e-12)
        assert same == (name in UNIT_FREE), name


def test_constant_rewards_have_no_correlation() -> None:
    a = np.arange(5.0)
    for measure in (pearson, spearman, kendall):
        assert math.isnan(measure(a, np.ones(5)))
        assert math.isnan(measure(np.ones(5), a))
        assert math.isnan(measure(a[:1], a[:1]))
        assert measure(0.5 * a[:2], 0.5 * a[:2]) == pytest.approx(1.0), "two texts within less than 1 of each other are enough"
    assert math.isnan(cosine(a, np.zeros(5)))


def test_compare_has_an_interval_for_every_measure() -> None:
    a = np.random.default_rng(0).normal(size=80)
    b = a + np.random.default_rng(1).normal(size=80)
    got = compare(a, b, Bootstrap(resamples=200))
    assert set(got) == set(MEASURES)
    for name, share in got.items():
        assert share.mean == MEASURES[name](a, b)
        assert share.low is not None
        assert share.high is not None
        assert share.low < share.mean < share.high, name
    assert got["cosine"] == Bootstrap(resamples=200)(lambda rows: cosine(a[rows], b[rows]), np.zeros(80, dtype=int))
    with pytest.raises(DataError, match="same texts"):
        compare(a, b[:5])
    for one, other in ((a, np.full(80, np.nan)), (np.full(80, np.inf), a)):
        with pytest.raises(DataError, match="must be finite"):
            compare(one, other)


def test_distance_sees_what_pairs_see() -> None:
    prompts = np.repeat(np.arange(20), 4)
    a, b = np.random.default_rng(0).normal(size=(2, 80))
    offset = np.random.default_rng(1).normal(size=20)[prompts]
    assert reward_distance(a, 5 * a + 10 * offset, prompts) < 1e-6
    assert abs(reward_distance(a, -a, prompts) - 1) < 1e-12
    assert math.isclose(reward_distance(a, b, prompts), reward_distance(a, b + offset, prompts), abs_tol=1e-12)
    assert 0.5 < reward_distance(a, b, prompts) < 0.9, "unrelated rewards are about sqrt(1/2) apart"
    form = canonicalise(a + offset, prompts)
    np.testing.assert_allclose([form[prompts == p].mean() for p in range(20)], 0, atol=1e-12)
    assert math.isclose(float(np.square(form).mean()), 1)
    for flat in (offset, 1e6 * offset, 0 * a):
        with pytest.raises(DataError, match="ranks nothing"):
            reward_distance(a, flat, prompts)
    np.testing.assert_allclose(canonicalise(1e-15 * a, prompts), canonicalise(a, prompts), rtol=1e-9)


def test_seed_agreement() -> None:
    a = np.random.default_rng(0).normal(size=30)
    table = seed_agreement(np.stack([a, np.exp(a), -a]))
    np.testing.assert_allclose(table, [[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    assert np.array_equal(table, table.T)


def test_null() -> None:
    same = np.random.default_rng(2).normal(size=(2, 300))
    share, holds = null_holds(same[0], same[1])
    assert holds
    assert abs(share.mean - 0.5) < 0.1
    assert not null_holds(same[0] + 1, same[1])[1]
    assert null_holds(np.zeros(10), np.zeros(10))[0].mean == 0.5
    assert null_holds(np.arange(8.0), np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0]))[0].mean == 6.5 / 8
    assert not null_holds(same[0] - 1, same[1])[1]
    with pytest.raises(DataError, match="there are none"):
        null_holds(np.array([]), np.array([]))
