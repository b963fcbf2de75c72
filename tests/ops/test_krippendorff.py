"""Tests ops/krippendorff.py against the example that K. Krippendorff computes by hand (2011, section E)."""

import numpy as np
import pytest

from finegrain.ops.krippendorff import IntervalAlpha, NominalAlpha

NO = np.nan
FOUR_OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NO, NO, NO],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NO, 3],
        [NO, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NO],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NO],
    ]
)


def alpha(kind, table, weights=None):
    made = kind()
    for place, unit in enumerate(table.T):
        seen = unit[~np.isnan(unit)]
        made.add(seen[:, None], np.array([1.0 if weights is None else float(weights[place])]))
    return made.alpha()


def test_the_published_example():
    assert alpha(NominalAlpha, FOUR_OBSERVERS) == pytest.approx(0.743, abs=5e-4)
    assert alpha(IntervalAlpha, FOUR_OBSERVERS) == pytest.approx(0.849, abs=5e-4)


@pytest.mark.parametrize("kind", [NominalAlpha, IntervalAlpha])
def test_a_weight_is_that_many_units(kind):
    weights = [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]
    repeated = np.repeat(FOUR_OBSERVERS, weights, axis=1)
    assert alpha(kind, FOUR_OBSERVERS, weights) == pytest.approx(alpha(kind, repeated), abs=1e-12)


@pytest.mark.parametrize("kind", [NominalAlpha, IntervalAlpha])
def test_units_of_one_annotator_do_not_count_and_agreement_is_one(kind):
    made = kind()
    made.add(np.array([[1.0, 2.0]]), np.ones(2))
    assert made.alpha() is None
    made.add(np.array([[1.0, 2.0], [1.0, 2.0]]), np.ones(2))
    assert made.alpha() == 1.0


@pytest.mark.parametrize("kind", [NominalAlpha, IntervalAlpha])
def test_annotators_by_chance_agree_at_zero(kind):
    rng = np.random.default_rng(0)
    made = kind()
    made.add(rng.integers(0, 2, (3, 40_000)).astype(float), np.ones(40_000))
    assert abs(made.alpha()) < 0.02


@pytest.mark.parametrize("kind", [NominalAlpha, IntervalAlpha])
def test_one_value_alone_has_no_alpha(kind):
    made = kind()
    made.add(np.full((3, 5), 0.1), np.ones(5))
    assert made.alpha() is None
