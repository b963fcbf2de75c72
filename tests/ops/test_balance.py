"""The bound's weight from two norms."""

import math

import pytest

from finegrain.errors import UsageError
from finegrain.ops.balance import Balance, LiteralWeights, StartShare, bound_weight, ranking_share


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_ranking_gets_its_share(share: float) -> None:
    weight = bound_weight(0.078, 6.6, share)
    assert ranking_share(0.078, weight * 6.6) == pytest.approx(share, rel=1e-12)
    assert bound_weight(0.078, 6.6, 0.5) == pytest.approx(0.078 / 6.6)


@pytest.mark.parametrize(
    ("ranking", "bound"), [(0.0, 3.0), (3.0, 0.0), (0.0, 0.0), (math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf)]
)
def test_nothing_to_weigh(ranking: float, bound: float) -> None:
    """A part without a gradient, and a step that is not finite, leave the weights as they are given."""
    assert bound_weight(ranking, bound, 0.5) == 1.0


def test_literal_weights_weigh_nothing() -> None:
    assert Balance(bound=frozenset(), rule=LiteralWeights()).weight(0.078, 6.6) == 1.0
    assert Balance(bound=frozenset(), rule=StartShare()).weight(0.078, 6.6) == pytest.approx(0.078 / 6.6)


def test_measured_steps() -> None:
    """The first one, and every tenth by its number from 1; the first alone where nothing more is asked for."""
    often, once = (Balance(bound=frozenset(), rule=StartShare(every=every)) for every in (10, 0))
    assert [step for step in range(31) if often.measured(step)] == [0, 9, 19, 29]
    assert [step for step in range(31) if once.measured(step)] == [0]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0, math.nan])
def test_a_share_is_within_0_and_1(share: float) -> None:
    with pytest.raises(UsageError, match="share"):
        StartShare(share=share)


@pytest.mark.parametrize("rule", [StartShare, LiteralWeights])
def test_steps_are_not_negative(rule: type) -> None:
    with pytest.raises(UsageError, match="every"):
        rule(every=-1)
