"""Members that say how sure they are: mixture, propagation, what is logged."""

import math

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.ops.readout import Sum
from finegrain.rewards.gaussian_ensemble import GaussianEnsemble
from finegrain.rewards.heads import sequence_score
from tests.rewards.sides import side


def raw(std: float) -> float:
    """What softplus turns into a standard deviation."""
    return math.log(math.expm1(std - 1e-4))


SIDE = side([[[1.0, 3.0, raw(3.0), raw(0.5)], [2.0, -1.0, raw(4.0), raw(1.2)]], [[0.5, 0.5, raw(0.2), raw(0.1)]]])


def test_mixture_of_propagated_members() -> None:
    """Sums: member 0 is N(3, 3^2 + 4^2), member 1 N(2, 0.5^2 + 1.2^2); the mixture adds the variance of the means, 0.25."""
    score = sequence_score(GaussianEnsemble(members=2, readout=Sum()), SIDE)
    assert score.std is not None
    assert score.members is not None
    assert score.member_std is not None
    assert score.mean.tolist() == pytest.approx([2.5, 0.5])
    assert score.members.tolist() == [[3.0, 0.5], [2.0, 0.5]]
    assert score.member_std[:, 0].tolist() == pytest.approx([5.0, 1.3])
    assert score.std.tolist() == pytest.approx([math.sqrt((25 + 1.69) / 2 + 0.25), math.sqrt((0.04 + 0.01) / 2)])


def test_one_member_is_a_gaussian_head() -> None:
    score = sequence_score(GaussianEnsemble(members=1, readout=Sum()), side([[[1.0, raw(3.0)], [2.0, raw(4.0)]]]))
    assert score.std is not None
    assert (score.mean.item(), score.std.item()) == (3.0, pytest.approx(5.0))


def test_members_are_the_first_outputs_and_their_spreads_the_others() -> None:
    score = GaussianEnsemble(members=3).tokens(torch.tensor([[[1.0, 2.0, 3.0, raw(4.0), raw(5.0), raw(6.0)]]], dtype=torch.float64))
    assert score.members is not None
    assert score.member_std is not None
    assert score.members.flatten().tolist() == [1.0, 2.0, 3.0]
    assert score.member_std.flatten().tolist() == pytest.approx([4.0, 5.0, 6.0])


def test_what_is_logged() -> None:
    assert SIDE.outputs is not None
    facts = GaussianEnsemble(members=2, readout=Sum()).facts(torch.where(SIDE.mask[..., None], SIDE.outputs, 0.0), SIDE.mask)
    assert facts["spread"].tolist() == [1.0, 0.0]
    assert facts["member_std"].tolist() == pytest.approx([3.15, 0.15])
    assert facts["wins/0"].tolist() == [0.0, 0.0]
    assert facts["wins/1"].tolist() == [1.0, 1.0]


def test_the_surest_member_is_found_answer_by_answer() -> None:
    """Three answers, two members: 0, 1, 0 are the surest."""
    answers = side([[[0.0, 0.0, raw(1.0), raw(2.0)]], [[0.0, 0.0, raw(2.0), raw(1.0)]], [[0.0, 0.0, raw(0.1), raw(3.0)]]])
    assert answers.outputs is not None
    facts = GaussianEnsemble(members=2).facts(answers.outputs, answers.mask)
    assert [facts[f"wins/{member}"].tolist() for member in range(2)] == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert facts["wins/0"].dtype == torch.float64


def test_rows_and_stock_row() -> None:
    weight = torch.randn(6, 4)
    head = GaussianEnsemble(members=3)
    assert torch.equal(head.rows(weight), weight[:3])
    torch.testing.assert_close(head.stock(weight), weight[:3].mean(0, keepdim=True))


def test_no_member() -> None:
    with pytest.raises(UsageError, match="at least 1, got 0"):
        GaussianEnsemble(members=0)
