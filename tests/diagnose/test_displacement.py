"""Displacement by hand-worked changes, and what each verdict needs."""

import numpy as np
import pytest

from finegrain.diagnose import displacement as d
from finegrain.ops.stats import Interval


def test_a_number_worked_by_hand() -> None:
    """Chosen -1, -2, -3: mean -2, deviation 1, half width 4.3027 / sqrt 3 = 2.4841."""
    found = d.assess_displacement(np.array([-1.0, -2.0, -3.0]), np.array([-5.0, -6.0, -7.0]), np.arange(3))
    assert found.chosen.mean == -2
    assert found.chosen.low == pytest.approx(-2 - 2.48414, abs=1e-4)
    assert found.margin == Interval(4.0, 4.0, 4.0, 3)
    assert found.verdict == d.SEPARATED


def ladder(mean: float) -> np.ndarray:
    """Twenty values with this mean and a small spread."""
    return mean + np.linspace(-0.1, 0.1, 20)


@pytest.mark.parametrize(
    ("chosen", "rejected", "verdict"),
    [
        (-2.0, -5.0, d.DISPLACED),
        (-2.0, -1.0, d.WORSE),
        (-2.0, -2.0, d.WORSE),
        (1.0, -1.0, d.RAISED),
        (1.0, 0.0, d.RAISED),
        (1.0, 0.5, d.BOTH_ROSE),
        (0.0, -1.0, d.SEPARATED),
        (0.0, 0.0, d.UNDECIDED),
        (0.0, 1.0, d.UNDECIDED),
    ],
)
def test_verdicts(chosen: float, rejected: float, verdict: str) -> None:
    found = d.assess_displacement(ladder(chosen), ladder(rejected)[::-1], np.arange(20))
    assert found.verdict == verdict
    assert found.words == d.WORDS[verdict]


def test_pairs_of_one_row_count_once() -> None:
    """Ten copies of each of two rows are two observations: mean of -1 and 1, half width 12.706 * sqrt 2 / sqrt 2."""
    groups = np.repeat([0, 1], 10)
    found = d.assess_displacement(np.repeat([-1.0, 1.0], 10), np.zeros(20), groups)
    assert found.chosen.rows == 2
    assert found.chosen.high == pytest.approx(12.7062, abs=1e-3)


def test_one_pair_has_no_interval_and_no_verdict() -> None:
    found = d.assess_displacement(np.array([-3.0]), np.array([-4.0]), np.array([0]))
    assert found.chosen == Interval(-3.0, None, None, 1)
    assert found.verdict == d.UNDECIDED


def test_concentration() -> None:
    """Ten pairs, one of which carries 11 of 20 nats."""
    assert d.concentration(np.array([-11.0, *[-1.0] * 9])) == d.Share(1, 10, 0.55)
    assert d.concentration(np.ones(4)) is None


def test_token_changes_by_hand() -> None:
    texts = [["the", "cat", "the"], ["the", "dog"]]
    found = d.token_changes(texts, [np.array([-1.0, 2.0, -2.0]), np.array([-5.0, -0.5])])
    assert [change.text for change in found] == ["the", "dog"]
    assert found[0].total == -8
    assert found[0].mean[:1] == (-4.0,)
    assert found[0].mean.rows == 2
    assert found[1].mean.low is None
