"""The rating head: expectation, spread, scale."""

import math

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.rewards.heads import sequence_score
from finegrain.rewards.lort import expected_rating
from finegrain.rewards.rating import Rating
from tests.rewards.sides import side

LOG3 = math.log(3.0)


def test_by_hand() -> None:
    """Last token: chances 1/4 and 3/4 on a scale 0, 1; then 1/2, 1/2."""
    score = sequence_score(Rating(classes=2, lowest=0.0), side([[[9.0, 0.0], [0.0, LOG3]], [[0.0, 0.0]]]))
    assert score.std is not None
    assert score.mean.tolist() == pytest.approx([0.75, 0.5])
    assert score.std.tolist() == pytest.approx([math.sqrt(3) / 4, 0.5])


def test_the_scale_shifts_the_mean_and_nothing_else() -> None:
    logits = torch.randn(3, 4, 5, dtype=torch.float64)
    one, zero = Rating(lowest=1.0).tokens(logits), Rating(lowest=0.0).tokens(logits)
    assert one.std is not None
    torch.testing.assert_close(one.mean, zero.mean + 1)
    torch.testing.assert_close(one.std, zero.std)
    torch.testing.assert_close(zero.mean.flatten(), expected_rating(logits.flatten(0, 1)))


def test_the_temperature_divides_the_logits() -> None:
    """Log-odds of 2 log 3 at temperature 2: chances 1/4 and 3/4."""
    assert Rating(classes=2, lowest=0.0, temperature=2.0).tokens(torch.tensor([[[0.0, 2 * LOG3]]])).mean.item() == pytest.approx(0.75)


def test_a_certain_rating_has_no_spread() -> None:
    score = Rating(classes=3).tokens(torch.tensor([[[0.0, 200.0, 0.0]]], dtype=torch.float64))
    assert score.std is not None
    assert score.mean.item() == pytest.approx(2.0)
    assert score.std.item() == pytest.approx(0.0, abs=1e-5)


def test_a_scale_of_one_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        Rating(classes=1)
