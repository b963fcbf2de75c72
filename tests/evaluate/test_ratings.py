"""Rating heads, class by class."""

import numpy as np
import pytest

from finegrain.errors import DataError
from finegrain.evaluate.ratings import report_ratings


def test_worked() -> None:
    truth = np.array([4, 4, 4, 4, 0, 0, 2])
    predicted = np.array([4, 4, 4, 3, 4, 0, 2])
    got = report_ratings(predicted, truth, {4: 500, 2: 100, 0: 19})
    assert {rating: share.mean for rating, share in got.accuracy.items()} == {0: 0.5, 2: 1.0, 4: 0.75}
    assert {rating: share.mean for rating, share in got.absolute_error.items()} == {0: 2.0, 2: 0.0, 4: 0.25}
    assert got.balanced_accuracy.mean == 0.75
    assert got.balanced_error == 0.75
    assert {name: share.mean for name, share in got.groups.items()} == {"many": 0.75, "medium": 1.0, "few": 0.5}
    assert set(report_ratings(predicted, truth, {4: 101, 2: 20, 0: 20}).groups) == {"many", "medium"}, "20 and 100 rows are medium"


def test_the_frequent_class_alone_has_one_over_k() -> None:
    truth = np.repeat([0, 1, 2, 3, 4], [1, 2, 3, 10, 100])
    got = report_ratings(np.full(116, 4), truth, {})
    assert got.balanced_accuracy.mean == 0.2
    assert set(got.groups) == {"few"}, "a class the head never saw is a rare one"


def test_bad_input() -> None:
    with pytest.raises(DataError, match="1 and 2"):
        report_ratings(np.array([0]), np.array([0, 1]), {})
    with pytest.raises(DataError, match="0 and 0"):
        report_ratings(np.array([], dtype=int), np.array([], dtype=int), {})
