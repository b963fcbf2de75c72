"""Members, their mean and their spread."""

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.ops.readout import Sum
from finegrain.rewards.ensemble import Ensemble
from finegrain.rewards.heads import sequence_score
from tests.rewards.sides import side


def test_an_answer_is_read_out_member_by_member() -> None:
    score = sequence_score(Ensemble(members=2, readout=Sum()), side([[[1.0, 3.0], [2.0, 0.0]], [[0.5, 0.5]]]))
    assert score.members is not None
    assert score.std is not None
    assert score.members.tolist() == [[3.0, 0.5], [3.0, 0.5]]
    assert score.mean.tolist() == [3.0, 0.5]
    assert score.std.tolist() == [0.0, 0.0]


def test_spread_is_unbiased() -> None:
    tokens = Ensemble(members=2).tokens(torch.tensor([[[1.0, 3.0]]]))
    assert tokens.std is not None
    assert tokens.std.item() == pytest.approx(2**0.5)


def test_one_member_is_no_ensemble() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        Ensemble(members=1)


def test_stock_row_gives_the_mean_of_the_members() -> None:
    weight, hidden = torch.randn(3, 4), torch.randn(4)
    torch.testing.assert_close((Ensemble(members=3).stock(weight) @ hidden)[0], (weight @ hidden).mean())
