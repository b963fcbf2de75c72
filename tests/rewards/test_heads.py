"""What heads make of numbers per token: members, readouts with their uncertainty, ends."""

import math
from dataclasses import replace

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.ops.readout import Last, Mean, Minimum, Sum
from finegrain.rewards.heads import combine_members, find_segment_ends, read_out, sequence_score, token_scores
from finegrain.rewards.segment import Segment
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from finegrain.types import Scored
from tests.rewards.sides import side


def real(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Centred(Sequence):
    """A head that takes the row's mean off every token."""

    reads_whole_answer = True

    def reweight_outputs(self, outputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return outputs - (outputs.sum(1, keepdim=True) / mask.sum(1)[:, None, None])


class Own(Sequence):
    """A head with an answer of its own: how many of its tokens there are, and their sum."""

    def answer(self, outputs: torch.Tensor, mask: torch.Tensor) -> Scored:
        return Scored(outputs[..., 0].sum(1), mask.sum(1).double())


def test_members_without_spread_of_their_own() -> None:
    found = combine_members(real([1.0, 4.0], [3.0, 0.0]))
    assert found.std is not None
    assert (found.mean.tolist(), found.std.tolist()) == ([2.0, 2.0], [pytest.approx(math.sqrt(2)), pytest.approx(math.sqrt(8))])
    alone = combine_members(real([1.0, 4.0]))
    assert (alone.mean.tolist(), alone.std) == ([1.0, 4.0], None)


def test_members_that_are_distributions_are_mixed() -> None:
    """Variances 1 and 9, means 1 and 3: 5 + 1."""
    found = combine_members(real([1.0], [3.0]), real([1.0], [3.0]))
    assert found.std is not None
    assert found.member_std is not None
    assert (found.mean.item(), found.std.item()) == (2.0, pytest.approx(math.sqrt(6.0)))
    assert found.member_std.tolist() == [[1.0], [3.0]]


@pytest.mark.parametrize(
    ("readout", "mean", "std"),
    [(Sum(), 3.0, 5.0), (Mean(), 1.5, 2.5), (Last(), 2.0, 4.0), (Minimum(), 1.0, 3.0)],
    ids=lambda value: type(value).__name__,
)
def test_an_answer_s_uncertainty_follows_from_its_tokens(readout: Sum | Mean | Last | Minimum, mean: float, std: float) -> None:
    """Tokens 1 and 2 with standard deviations 3 and 4; what is off the mask says nothing."""
    mask = torch.tensor([[True, True, False]])
    found = read_out(readout, Scored(real([1.0, 2.0, 9.0]), real([3.0, 4.0, float("nan")])), mask)
    assert found.std is not None
    assert (found.mean.tolist(), found.std.tolist()) == ([pytest.approx(mean)], [pytest.approx(std)])
    assert read_out(readout, Scored(real([1.0, 2.0, 9.0])), mask).std is None


def test_members_are_read_out_one_by_one() -> None:
    """Minima 1 and 0, where the minimum of the mean is 1.5."""
    mask = torch.tensor([[True, True]])
    members = torch.stack([real([1.0, 3.0]), real([5.0, 0.0])])
    found = read_out(Minimum(), combine_members(members), mask)
    assert found.members is not None
    assert (found.mean.tolist(), found.members.tolist()) == ([0.5], [[1.0], [0.0]])


def test_an_answer_of_the_head_s_own_sees_its_tokens_alone() -> None:
    found = sequence_score(Own(), side([[[1.0], [2.0]], [[4.0]]]))
    assert found.std is not None
    assert (found.mean.tolist(), found.std.tolist()) == ([3.0, 4.0], [2.0, 1.0])


def test_tokens_may_be_weighed_against_one_another() -> None:
    judged = side([[[1.0], [2.0]], [[4.0]]])
    assert judged.outputs is not None
    assert token_scores(Centred(), judged.outputs, judged.mask).mean[0].tolist() == [-0.5, 0.5]
    assert sequence_score(Centred(), judged).mean.tolist() == [0.5, 0.0]


def test_ends_lie_on_the_mask() -> None:
    judged = replace(side([[[1.0], [2.0], [3.0]], [[4.0]]]), segment=torch.tensor([[0, 0, 1], [0, 0, 0]]))
    assert find_segment_ends(Segment(), judged).tolist() == [[False, True, True], [False, False, False]]
    with pytest.raises(UsageError, match=r"^Token reads ends of segments or steps, but these answers have none"):
        find_segment_ends(Token(), side([[[1.0]]]))
