"""Best of n without drawing: weights, ends, and a count over all subsets."""

from itertools import combinations

import numpy as np
import pytest

from finegrain.errors import UsageError
from finegrain.ops.best_of_n import expected_best, kl_of_best, rank_weights


def test_weights() -> None:
    np.testing.assert_allclose(rank_weights(3, 2), [0, 1 / 3, 2 / 3])
    for best_of in (1, 2, 17, 500, 12_500, 12_600):
        assert rank_weights(12_600, best_of).sum() == pytest.approx(1, rel=1e-9)


def test_ends() -> None:
    proxy, gold = np.random.default_rng(0).normal(size=(2, 4, 9))
    np.testing.assert_allclose(expected_best(proxy, gold, 1), gold.mean(1))
    np.testing.assert_allclose(expected_best(proxy, gold, 9), gold[np.arange(4), proxy.argmax(1)])


@pytest.mark.parametrize("best_of", [2, 3, 5])
def test_all_subsets(best_of: int) -> None:
    proxy, gold = np.random.default_rng(1).normal(size=(2, 7))
    winners = [max(subset, key=lambda place: proxy[place]) for subset in combinations(range(7), best_of)]
    assert expected_best(proxy, gold, best_of) == pytest.approx(gold[winners].mean())
    assert expected_best(proxy, proxy, best_of) == pytest.approx(proxy[winners].mean())


def test_kl() -> None:
    assert kl_of_best(1) == 0
    assert kl_of_best(2) == pytest.approx(np.log(2) - 0.5)


@pytest.mark.parametrize("best_of", [0, 4])
def test_more_than_there_are(best_of: int) -> None:
    with pytest.raises(UsageError, match=f"the number of answers, 3; got {best_of}"):
        rank_weights(3, best_of)
