"""Readouts of token scores, on ragged answers by hand."""

import pytest

from finegrain.ops.readout import Last, Mean, Minimum, Sum
from finegrain.rewards.heads import sequence_score
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.token import Token
from tests.rewards.sides import side

SIDE = side([[[1.0], [2.0], [-6.0]], [[0.5]]])


@pytest.mark.parametrize(("readout", "expected"), [(Sum(), [-3.0, 0.5]), (Mean(), [-1.0, 0.5]), (Last(), [-6.0, 0.5]), (Minimum(), [-6.0, 0.5])])
def test_readouts(readout: Sum | Mean | Last | Minimum, expected: list[float]) -> None:
    assert sequence_score(Token(readout=readout), SIDE).mean.tolist() == expected


def test_last_is_the_sequence_head() -> None:
    assert sequence_score(Token(readout=Last()), SIDE).mean.tolist() == sequence_score(Sequence(), SIDE).mean.tolist()
