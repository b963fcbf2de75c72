"""AVA-d as a reward model is AVA-d as an objective, for a Gaussian head."""

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.objectives.ava_d import AvaD as Direct
from finegrain.ops.bayesian_irl import Inference
from finegrain.rewards.ava_d import AvaD
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.sequence import Sequence
from tests.objectives.test_ava_d import WORKED

GIVEN = WORKED


def test_same_terms() -> None:
    inference = Inference(beta=0.5, td=2.0)
    mine = RewardFit(Gaussian(), AvaD(inference=inference))(GIVEN)
    theirs = Direct(inference=inference)(GIVEN)
    assert isinstance(mine, dict)
    assert mine.keys() == theirs.keys()
    for name, term in theirs.items():
        torch.testing.assert_close(mine[name].value, term.value)
        torch.testing.assert_close(mine[name].count, term.count)
        assert mine[name].coefficient == term.coefficient


def test_needs_a_gaussian_head() -> None:
    assert RewardFit(Gaussian(), AvaD()).needs == {"logp"}
    with pytest.raises(UsageError, match="Gaussian head"):
        RewardFit(Sequence(), AvaD())
