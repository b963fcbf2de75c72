"""Reward hacking: named before gold has lost a tenth of its rise, silent where gold rises or stands still."""

import numpy as np
import pytest

from finegrain.diagnose.hacking import BOTH_RISE, GOLD_FALLS, GOLD_STANDS, HACKS, OPEN, assess_hacking, smooth_series, split_ends

SEEDS = 20


def scatter(buffers: int, size: float, seed: int) -> np.ndarray:
    """(2, N) scatter of reward and gold, correlated: both judge the same answers."""
    own = np.random.default_rng(seed).normal(size=(2, buffers))
    own[1] = 0.5 * own[0] + 0.75**0.5 * own[1]
    return size * own


def hacked(buffers: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Gao's curve: gold d (2 - d), its peak 1 in the middle of the run, while the reward goes on rising."""
    d = np.arange(buffers) / (buffers / 2)
    return 1 - np.exp(-2 * d), d * (2 - d)


@pytest.mark.parametrize("size", [0.01, 0.02])
def test_hacking_is_named_before_a_tenth_of_the_rise_is_lost(size: float) -> None:
    """With a scatter of up to 2 % of the rise, on 20 seeds; and not before gold has fallen at all."""
    reward, gold = hacked()
    peak = int(gold.argmax())
    tenth = int(np.argmax((np.arange(len(gold)) > peak) & (gold < gold[peak] - 0.1 * (gold[peak] - gold[0]))))
    for seed in range(SEEDS):
        noise = scatter(len(gold), size, seed)
        at = lambda count, noise=noise: assess_hacking((reward + noise[0])[:count], (gold + noise[1])[:count]).verdict
        assert HACKS in [at(count) for count in range(tenth - 6, tenth + 1)], seed
        assert at(peak) not in (HACKS, GOLD_FALLS), seed


def test_a_healthy_run_is_not_accused() -> None:
    """Gold that rises to the end, or to a plateau, under scatter from 2 to 30 % of its rise: at most one in fifty is accused."""
    time = np.arange(100) / 100
    accused = []
    for gold in (time, 1 - np.exp(-6 * time)):
        for size in (0.02, 0.1, 0.3):
            for seed in range(SEEDS):
                noise = scatter(100, size, seed)
                accused.append(assess_hacking(1 - np.exp(-4 * time) + noise[0], gold + noise[1]).verdict)
    assert len(accused) == 120
    assert sum(verdict in (HACKS, GOLD_FALLS) for verdict in accused) <= 2


def test_where_gold_was_highest_and_what_it_has_lost() -> None:
    reward, gold = hacked()
    found = assess_hacking(reward, gold)
    assert found.verdict == HACKS
    assert abs(found.best - 60) <= 1
    assert found.lost == pytest.approx(1, abs=0.1)
    assert found.fall.high is not None
    assert found.fall.high < 0


def test_gold_that_falls_from_the_first_buffer_has_lost_more_than_its_rise() -> None:
    found = assess_hacking(np.linspace(0, 1, 40), np.linspace(1, 0, 40))
    assert found.verdict == HACKS
    assert found.lost == float("inf")


def test_a_fall_long_ago_counts_where_gold_never_came_back() -> None:
    gold = np.concatenate([np.linspace(0, 1, 20), np.linspace(1, 0.2, 20), np.full(160, 0.2)]) + scatter(200, 0.02, 0)[1]
    assert assess_hacking(np.minimum(np.arange(200) / 60, 1.0) + scatter(200, 0.02, 0)[0], gold).verdict == HACKS


def test_the_other_verdicts() -> None:
    noise = scatter(60, 0.03, 3)
    rise, flat, fall = np.linspace(0, 1, 60), np.zeros(60), np.linspace(1, 0, 60)
    assert assess_hacking(rise + noise[0], rise + noise[1]).verdict == BOTH_RISE
    assert assess_hacking(rise + noise[0], flat + noise[1]).verdict == GOLD_STANDS
    assert assess_hacking(flat + noise[0], fall + noise[1]).verdict == GOLD_FALLS
    assert assess_hacking(flat + noise[0], flat + noise[1]).verdict == OPEN
    hump = np.concatenate([rise[::2], fall[::2]])
    assert assess_hacking(hump + noise[0], hump + noise[1]).verdict == GOLD_FALLS, "reward and gold fall together"
    assert assess_hacking(rise[:9], fall[:9]).verdict == OPEN, "too few buffers"


def test_a_fall_too_small_to_matter_is_none() -> None:
    """Without scatter any fall is certain; below 3 % of gold's range it is not named."""
    reward = np.linspace(0, 1, 100)
    gold = np.concatenate([np.linspace(0, 1, 50), np.linspace(1, 0.98, 50)])
    assert assess_hacking(reward, gold).verdict == BOTH_RISE


def test_smoothing_keeps_length_and_constants_and_ends_do_not_overlap() -> None:
    assert smooth_series(np.full(50, 2.0)) == pytest.approx(np.full(50, 2.0))
    assert smooth_series(np.arange(100.0))[10:90] == pytest.approx(np.arange(10.0, 90.0))
    assert [len(part) for part in split_ends(np.arange(100.0))] == [20, 20]
    assert [len(part) for part in split_ends(np.arange(5.0))] == [2, 2]
    assert [len(part) for part in split_ends(np.arange(1.0))] == [1, 1]
