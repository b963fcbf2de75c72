"""Share of pairs in order: the tie rule, and the traps around it."""

import numpy as np
import pytest

from finegrain.errors import DataError
from finegrain.evaluate.accuracy import TieLoses, TieShares, accuracy_by_length, length_scores, pair_accuracy


def test_worked_rules() -> None:
    chosen, rejected = np.array([2.0, 1.0, 0.0]), np.array([1.0, 1.0, 3.0])
    assert TieLoses()(chosen, rejected).tolist() == [1.0, 0.0, 0.0]
    assert TieShares()(chosen, rejected).tolist() == [1.0, 0.5, 0.0]
    got = pair_accuracy(chosen, rejected)
    assert (got.accuracy.mean, got.accuracy.rows, got.tied) == (1 / 3, 3, 1)


def test_a_policy_that_equals_its_reference_has_accuracy_0_and_says_why() -> None:
    zero = np.zeros(50)
    got = pair_accuracy(zero, zero)
    assert (got.accuracy.mean, got.tied) == (0.0, 50)
    assert pair_accuracy(zero, zero, TieShares()).accuracy.mean == 0.5


def test_half_precision_makes_ties() -> None:
    chosen = np.array([10.001, 10.002])
    assert TieLoses()(chosen, chosen - 0.001).mean() == 1
    assert TieLoses()(chosen.astype(np.float16), (chosen - 0.001).astype(np.float16)).mean() == 0


def test_increasing_transforms_change_nothing_and_negation_swaps() -> None:
    generator = np.random.default_rng(0)
    chosen, rejected = generator.normal(size=(2, 200))
    want = TieLoses()(chosen, rejected)
    assert np.array_equal(TieLoses()(np.exp(chosen), np.exp(rejected)), want)
    assert np.array_equal(TieLoses()(-chosen, -rejected), 1 - want)


def test_a_random_scorer_is_at_one_half() -> None:
    chosen, rejected = np.random.default_rng(0).normal(size=(2, 4000))
    assert abs(pair_accuracy(chosen, rejected).accuracy.mean - 0.5) < 4 * 0.5 / 4000**0.5, "four standard errors"


def test_length_is_told_apart() -> None:
    lengths = [length_scores(texts) for texts in (["abc", "a", "aa", "abcd"], ["ab", "abc", "bb", "a"])]
    assert lengths[0].tolist() == [3, 1, 2, 4]
    got = accuracy_by_length(TieLoses()(*lengths), *lengths)
    assert {name: (share.mean, share.rows) for name, share in got.items()} == {
        "chosen longer": (1.0, 2),
        "chosen shorter": (0.0, 1),
        "equal length": (0.0, 1),
    }


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 2"):
        pair_accuracy(np.array([1.0, np.nan]), np.zeros(2))
    with pytest.raises(DataError, match="fix the scorer"):
        pair_accuracy(np.zeros(1), np.array([np.inf]), TieShares())
