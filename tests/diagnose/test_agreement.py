"""Disagreement of a signal with marks, by counting pairs of tokens."""

import numpy as np
import pytest

from finegrain.diagnose import agreement as a


def naive(signal: np.ndarray, marks: np.ndarray, mask: np.ndarray) -> float:
    wrong, total = 0.0, 0
    for i in np.flatnonzero(mask):
        for j in np.flatnonzero(mask):
            if np.sign(marks[i]) < np.sign(marks[j]):
                total += 1
                wrong += 1.0 if signal[i] > signal[j] else 0.5 if signal[i] == signal[j] else 0.0
    return wrong / total


def test_by_hand() -> None:
    """Marked bad: 3 and 0; unmarked: 1 and 2. Wrong: 3 > 1, 3 > 2, of four comparisons."""
    everything = np.ones(4, dtype=bool)
    assert a.disagreement(np.array([3.0, 0.0, 1.0, 2.0]), np.array([-1.0, -1.0, 0.0, 0.0]), everything) == 0.5
    assert a.disagreement(np.array([-3.0, -1.0, 1.0, 2.0]), np.array([-1.0, -1.0, 0.0, 0.0]), everything) == 0.0
    assert np.isnan(a.disagreement(np.ones(4), np.zeros(4), everything))


@pytest.mark.parametrize("seed", range(5))
def test_against_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    signal, marks, mask = rng.integers(-2, 3, 30).astype(float), rng.integers(-1, 2, 30).astype(float), rng.random(30) < 0.8
    assert a.disagreement(signal, marks, mask) == pytest.approx(naive(signal, marks, mask))


def test_verdicts() -> None:
    near = np.linspace(-0.05, 0.05, 20)
    assert a.mean_disagreement(list(0.2 + near))[1] == a.AGREES
    assert a.mean_disagreement(list(0.8 + near))[1] == a.CONTRADICTS
    assert a.mean_disagreement(list(0.5 + near))[1] == a.CHANCE
    interval, verdict = a.mean_disagreement([float("nan"), 0.3])
    assert (interval.rows, verdict) == (1, a.CHANCE)
