"""Order, honesty and doubt of a reward model: hand-worked numbers, and models that must and must not be accused."""

import numpy as np
import pytest

from finegrain.diagnose import confidence as cf
from finegrain.ops.stats import Interval


def test_confidence_and_right_by_hand() -> None:
    """A difference of ln 3 either way is a confidence of 3/4; equal scores are 1/2, half right."""
    margins = np.array([np.log(3), -np.log(3), 0.0])
    assert cf.confidence(margins) == pytest.approx([0.75, 0.75, 0.5])
    assert cf.compute_correctness(margins).tolist() == [1.0, 0.0, 0.5]


def test_the_gap_by_hand() -> None:
    """Two rows of confidence 3/4, one right: 3/4 minus 1/2, and minus Wilson's 0.0945 to 0.9055."""
    found = cf.assess_honesty(np.array([np.log(3), -np.log(3)]), np.arange(2))
    assert found.gap.mean == pytest.approx(0.25)
    assert (found.gap.low, found.gap.high) == pytest.approx((0.75 - 0.9055, 0.75 - 0.0945), abs=1e-4)
    assert found.verdict == cf.UNDECIDED
    assert "cannot be decided" in found.words


def labelled(scale: float, count: int, seed: int = 0) -> np.ndarray:
    """Score differences of a model that claims `scale` times the true log-odds."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 1.5, count)
    chosen_is_first = rng.random(count) < 1 / (1 + np.exp(-odds))
    return scale * np.where(chosen_is_first, odds, -odds)


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, cf.HONEST), (6.0, cf.OVER), (0.1, cf.UNDER)])
def test_models_that_claim_too_much_and_too_little_are_named(scale: float, verdict: str) -> None:
    found = cf.assess_honesty(labelled(scale, 600), np.arange(600))
    assert found.verdict == verdict
    assert found.words == cf.WORDS[verdict]


def test_a_calibrated_model_is_seldom_accused() -> None:
    """An accusation needs a 95 % interval on one side: at most a few in a hundred draws of forty honest rows."""
    accused = [cf.assess_honesty(labelled(1.0, 40, seed), np.arange(40)).verdict in (cf.OVER, cf.UNDER) for seed in range(100)]
    assert sum(accused) <= 10


def test_order() -> None:
    """Wilson's interval of 9 of 10 is 0.596 to 0.982; 6 of 10 reaches below one half."""
    margins = np.array([1.0] * 9 + [-1.0])
    found = cf.assess_order(margins, np.arange(10))
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert found.verdict == cf.RANKS
    assert cf.assess_order(-margins, np.arange(10)).verdict == cf.REVERSED
    assert cf.assess_order(np.array([1.0] * 6 + [-1.0] * 4), np.arange(10)).verdict == cf.GUESSES
    assert cf.assess_order(np.zeros(0), np.arange(0)).verdict == cf.GUESSES


def test_pairs_of_one_row_count_once() -> None:
    """Ten pairs of one row are one observation: no verdict."""
    assert cf.assess_order(np.ones(10), np.zeros(10, dtype=int)).accuracy.rows == 1
    assert cf.assess_order(np.ones(10), np.zeros(10, dtype=int)).verdict == cf.GUESSES
    assert cf.assess_honesty(np.full(10, -3.0), np.zeros(10, dtype=int)).verdict == cf.UNDECIDED


def test_doubt() -> None:
    assert cf.assess_doubt(Interval(0.7, 0.55, 0.85, 40), 10)[0] == cf.KNOWS
    assert cf.assess_doubt(Interval(0.3, 0.15, 0.45, 40), 10)[0] == cf.BLIND
    assert cf.assess_doubt(Interval(0.7, 0.45, 0.95, 40), 10) == (cf.UNDECIDED, cf.DOUBT_UNKNOWN)
    assert cf.assess_doubt(Interval(0.7, 0.55, 0.85, 40), 4)[0] == cf.UNDECIDED, "four wrong pairs are too few"
    assert cf.assess_doubt(Interval(float("nan"), None, None, 6), 0)[0] == cf.UNDECIDED


def test_a_handful_of_rows_accuses_nobody() -> None:
    """Four held-out rows all wrong, of which one in sixteen guessing models has as many: no verdict, though Wilson ends at 0.49."""
    few = np.full(4, -0.05)
    assert cf.assess_order(few, np.arange(4)).accuracy.high == pytest.approx(0.4899, abs=1e-4)
    assert cf.assess_order(few, np.arange(4)).verdict == cf.GUESSES
    assert cf.assess_honesty(few, np.arange(4)).verdict == cf.UNDECIDED
    assert cf.assess_honesty(np.zeros(0), np.zeros(0, dtype=int)).verdict == cf.UNDECIDED
