"""Coverage of credit by hand."""

import numpy as np
import pytest

from finegrain.diagnose import coverage as c


def test_kept_by_hand() -> None:
    """Means 0.5 and 1.0: 0.75 per answer; none dropped whole."""
    found = c.assess_coverage([np.array([1.0, 0.0]), np.array([1.0, 1.0, 1.0])])
    assert found.kept.mean == 0.75
    assert found.dropped.mean == 0
    assert found.verdict == c.PARTIAL


@pytest.mark.parametrize(
    ("weight", "verdict"), [(0.0, c.DROPS_ALL), (0.005, c.DROPS_ALL), (0.05, c.DROPS_MOST), (0.5, c.PARTIAL), (1.0, c.KEEPS_ALL), (2.0, c.PARTIAL)]
)
def test_verdicts(weight: float, verdict: str) -> None:
    assert c.assess_coverage([np.full(7, weight), np.full(3, weight)]).verdict == verdict


def test_a_signed_weight_is_kept_too() -> None:
    """A negative weight trains, the other way."""
    assert c.assess_coverage([np.array([-1.0, 1.0])]).kept.mean == 1.0


def test_answers_without_tokens_do_not_count() -> None:
    found = c.assess_coverage([np.zeros(0), np.ones(2)])
    assert found.kept.rows == 1
