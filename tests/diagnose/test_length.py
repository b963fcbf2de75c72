"""Length against reward: hand-worked ranks, and data that must and must not be called length hacking."""

import numpy as np
import pytest

from finegrain.diagnose import length as ln
from finegrain.ops.bootstrap import Bootstrap


def test_spearman_by_hand() -> None:
    """Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15) = 0.8."""
    assert ln.spearman(np.array([10, 20, 30, 40]), np.array([0.1, 0.3, 0.2, 9.0])) == pytest.approx(0.8)
    assert np.isnan(ln.spearman(np.ones(4), np.arange(4)))


def pairs(slope: float, noise: float, seed: int = 0, count: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 60, (count, 2))
    return lengths, slope * lengths + noise * rng.normal(size=(count, 2))


def test_a_reward_that_is_length_is_length_hacking() -> None:
    found = ln.assess_length(*pairs(1.0, 5.0), np.arange(80))
    assert found.verdict == ln.HACKED
    assert found.correlation.low > 0.8
    assert found.reward_prefers_longer.low > found.label_prefers_longer.mean


def test_labels_that_ask_for_length_are_no_hacking() -> None:
    """The chosen answer is the longer one in every pair: a reward that follows length does as asked."""
    lengths, rewards = pairs(1.0, 0.0)
    order = np.argsort(-lengths, axis=1)
    found = ln.assess_length(np.take_along_axis(lengths, order, 1), np.take_along_axis(rewards, order, 1), np.arange(80))
    assert found.verdict == ln.LONGER


def test_other_rewards() -> None:
    assert ln.assess_length(*pairs(0.0, 1.0), np.arange(80)).verdict == ln.UNRELATED
    assert ln.assess_length(*pairs(-1.0, 5.0), np.arange(80)).verdict == ln.SHORTER
    few = np.arange(9)
    assert ln.assess_length(*pairs(1.0, 0.1, count=9), few).verdict == ln.UNKNOWN, "nine rows are too few"
    same = np.full((8, 2), 7)
    assert ln.assess_length(same, np.arange(16.0).reshape(8, 2), np.arange(8)).verdict == ln.UNKNOWN


def test_copies_of_a_row_do_not_narrow_the_interval() -> None:
    """Five copies of each pair: the interval is that of the pairs once."""
    lengths, rewards = pairs(0.05, 1.0, count=30)
    once = ln.assess_length(lengths, rewards, np.arange(30))
    copied = ln.assess_length(np.repeat(lengths, 5, 0), np.repeat(rewards, 5, 0), np.repeat(np.arange(30), 5))
    assert copied.correlation.high - copied.correlation.low == pytest.approx(once.correlation.high - once.correlation.low, rel=0.05)
    naive = ln.assess_length(np.repeat(lengths, 5, 0), np.repeat(rewards, 5, 0), np.arange(150))
    assert naive.correlation.high - naive.correlation.low < 0.7 * (once.correlation.high - once.correlation.low)


def test_pairs_drawn_alone_and_in_groups_of_one_size_are_drawn_alike() -> None:
    """The interval of the correlation is Bootstrap's of `spearman` itself, draw by draw; a group of another size changes only what is drawn."""
    lengths, rewards = pairs(0.05, 1.0, count=30)
    for rows in (np.arange(30), np.arange(30) // 2, np.maximum(np.arange(30), 1)):
        own = [np.flatnonzero(rows == row) for row in np.unique(rows)]
        drawn = lambda places, own=own: np.concatenate([own[place] for place in places])
        statistic = lambda places, drawn=drawn: ln.spearman(lengths[drawn(places)].ravel(), rewards[drawn(places)].ravel())
        assert ln.assess_length(lengths, rewards, rows).correlation == Bootstrap(resamples=500)(statistic, np.zeros(len(own), dtype=int))
