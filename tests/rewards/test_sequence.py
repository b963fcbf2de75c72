"""The sequence head reads the last token."""

import torch

from finegrain.rewards.heads import sequence_score
from finegrain.rewards.sequence import Sequence
from tests.rewards.sides import side


def test_the_last_token_speaks_for_the_answer() -> None:
    score = sequence_score(Sequence(), side([[[1.0], [2.0], [-3.0]], [[0.5]]]))
    assert score.mean.tolist() == [-3.0, 0.5]
    assert score.std is None
    assert score.members is None


def test_stock_row_is_the_weight() -> None:
    weight = torch.randn(1, 4)
    assert torch.equal(Sequence().stock(weight), weight)
