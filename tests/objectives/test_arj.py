"""arj: numbers by hand."""

from dataclasses import replace

import torch

from finegrain.objectives.arj import ARJ
from finegrain.types import Pair
from tests.objectives.worked import close, even_side


def loss(*weight: float) -> torch.Tensor:
    side = even_side(-10, -10, 5)
    return ARJ()(Pair(sides={"answer": replace(side, weight=torch.tensor([weight], dtype=torch.float64))}))


def test_mean_over_kept_tokens() -> None:
    close(loss(1, 1, 1, 1, 1), 2.0)
    close(loss(0, 1, 1, 0, 0), 2.0)


def test_little_kept_weight_is_not_blown_up() -> None:
    close(loss(0.25, 0, 0, 0, 0), 0.5)
    close(loss(0, 0, 0, 0, 0), 0.0)


def test_without_credit_it_is_the_mean_over_the_answer() -> None:
    close(ARJ()(Pair(sides={"answer": even_side(-9, -9, 4)})), 2.25)
