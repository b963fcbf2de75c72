"""Targets of rating heads."""

import math

import pytest
import torch

from finegrain.errors import DataError, UsageError
from finegrain.rewards.targets import GaussianTarget, OddsTarget, OneHot, OrdinalTarget, SmoothedTarget, Target, to_smoothing

TARGETS = [OneHot(), SmoothedTarget(smoothing=0.1), OddsTarget(), OrdinalTarget(), GaussianTarget()]
LABELS = torch.tensor([0, 4, 2, 2])


def to_odds(smoothing: float, classes: int) -> float:
    """The inverse of `to_smoothing`."""
    return math.inf if smoothing == 0 else 1 + classes * (1 - smoothing) / smoothing


def test_worked() -> None:
    want = torch.tensor([[0.925, 0.025, 0.025, 0.025]], dtype=torch.float64)
    torch.testing.assert_close(SmoothedTarget(smoothing=0.1)(torch.tensor([0]), 4), want)
    e = math.e
    want = torch.tensor([[e / (e + 2), 1 / (e + 2)]], dtype=torch.float64)
    got = OrdinalTarget(width=1.0)(torch.tensor([1]), 3)[0, [1, 0]][None]
    torch.testing.assert_close(got, want)


def test_the_authors_smoothing_at_other_scales() -> None:
    """rho = 3.04 from 0.98 at K = 100: 0.710 at K = 5, 0.831 at K = 10."""
    rho = to_odds(0.98, 100)
    assert round(rho, 2) == 3.04
    assert OddsTarget().odds == pytest.approx(rho, abs=1e-12)
    assert (round(to_smoothing(rho, 5), 3), round(to_smoothing(rho, 10), 3)) == (0.710, 0.831)
    for classes in (2, 5, 10, 100):
        target = OddsTarget()(torch.tensor([1]), classes)[0]
        assert float(target[1] / target[0]) == pytest.approx(rho, rel=1e-12)


def test_odds_and_smoothing_invert() -> None:
    for classes in (2, 5, 100):
        for smoothing in (0.01, 0.5, 0.98):
            assert abs(to_smoothing(to_odds(smoothing, classes), classes) - smoothing) < 1e-12
    assert to_odds(0.0, 5) == math.inf


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: type(target).__name__)
def test_distributions_that_favour_the_label(target: Target) -> None:
    got = target(LABELS, 5)
    assert (got >= 0).all()
    torch.testing.assert_close(got.sum(1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(got.argmax(1), LABELS)


def test_limits() -> None:
    assert torch.equal(SmoothedTarget(smoothing=0.0)(LABELS, 5), OneHot()(LABELS, 5))
    for narrow in (OrdinalTarget(width=1e-3), GaussianTarget(deviation=1e-3)):
        torch.testing.assert_close(narrow(LABELS, 5), OneHot()(LABELS, 5))


def test_neighbours_get_more_than_strangers() -> None:
    for target in (OrdinalTarget(), GaussianTarget()):
        falling = target(torch.tensor([0]), 5)[0]
        assert (falling.diff() < 0).all()
    flat = SmoothedTarget(smoothing=0.5)(torch.tensor([0]), 5)[0]
    assert flat[1] == flat[4]


def test_bad_settings_and_labels() -> None:
    for smoothing in (1.0, -0.1):
        with pytest.raises(UsageError, match="smoothing"):
            SmoothedTarget(smoothing=smoothing)
    with pytest.raises(UsageError, match="exceed 1"):
        OddsTarget(odds=1.0)
    with pytest.raises(UsageError, match="above 0"):
        OrdinalTarget(width=0.0)
    with pytest.raises(UsageError, match="above 0"):
        GaussianTarget(deviation=-1.0)
    with pytest.raises(DataError, match=r"0 \.\. 4"):
        OneHot()(torch.tensor([1, 5]), 5)
