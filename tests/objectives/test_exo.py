"""exo: a number by hand, and its minimum at the target's probability."""

import math

import pytest

from finegrain.errors import UsageError
from finegrain.objectives.exo import EXO, exo_loss
from tests.objectives.worked import close, real, scalar_pair, worked_pair


def test_worked_pair() -> None:
    win = 1 / (1 + math.exp(-0.15))
    want = win * (math.log(win) - math.log(0.9)) + (1 - win) * (math.log(1 - win) - math.log(0.1))
    close(EXO(epsilon=0.1)(worked_pair()), want, tolerance=1e-12)
    assert abs(want - 0.4314) < 1e-4


def test_minimum_is_zero_at_the_target() -> None:
    close(exo_loss(real(math.log(0.9 / 0.1) / 0.3), beta=0.3, epsilon=0.1), 0.0, tolerance=1e-12)


def test_large_margins_stay_finite() -> None:
    assert EXO()(scalar_pair((1e5, -1e5), (0.0, 0.0))).isfinite().all()


@pytest.mark.parametrize("epsilon", [0.0, 0.5])
def test_targets_without_a_logarithm_are_refused(epsilon: float) -> None:
    with pytest.raises(UsageError, match="epsilon"):
        EXO(epsilon=epsilon)
