"""What is measured of each rating, on logits written by hand. Test of recipes/training/reward_artifact.py."""

import numpy as np
import pytest
import torch

from finegrain.recipes.training.reward_artifact import measure_ratings
from finegrain.rewards.rating import Rating
from finegrain.types import Pair, Side


def held_out(logits: list[list[float]], places: list[float]) -> Pair:
    """Answers of one token with these logits and ratings."""
    outputs = torch.tensor(logits)[:, None]
    mask = torch.ones(len(places), 1, dtype=torch.bool)
    return Pair(sides={"answer": Side(logp=torch.zeros(len(places), 1), mask=mask, outputs=outputs)}, columns={"rating_place": torch.tensor(places)})


def test_spread_and_groups_by_training_rows() -> None:
    """Logits of the lowest rating are 3, 1, 0, 0: 2 more on its own rows than on the others, with a standard deviation of sqrt(1.5)."""
    pair = held_out([[3.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 4.0]], [0.0, 0.0, 1.0, 2.0])
    training = np.repeat([0.0, 1.0, 1.6], [101, 20, 5])
    found = measure_ratings(Rating(classes=3, lowest=1.0), [pair], training)
    assert found["eval_rating_magnitude/1"].mean == 2.0
    assert found["eval_rating_relative_std/1"].mean == pytest.approx(1.5**0.5 / 2)
    groups = {name: found[f"eval_rating_exact_of_{name}"].mean for name in ("many", "medium", "few")}
    assert groups == {"many": 0.5, "medium": 1.0, "few": 1.0}
    assert found["eval_rating_balanced_accuracy"].mean == pytest.approx(2.5 / 3)


def test_a_logit_that_is_the_same_everywhere_has_no_relative_spread() -> None:
    found = measure_ratings(Rating(classes=2, lowest=0.0), [held_out([[1.0, 0.0], [1.0, 2.0]], [0.0, 1.0])], np.zeros(3))
    assert "eval_rating_relative_std/0" not in found
    assert "eval_rating_relative_std/1" in found
    assert set(found) >= {"eval_rating_exact_of_few"}
    assert "eval_rating_exact_of_many" not in found
