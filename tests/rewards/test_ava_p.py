"""AVA-p as a reward model is AVA-p as an objective, for a Gaussian head."""

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.objectives.ava_p import AvaP as Direct
from finegrain.ops.bayesian_irl import Inference, UnitScale
from finegrain.ops.contrast import LogSigmoid
from finegrain.ops.reward_weight import Attention, Uniform
from finegrain.rewards.ava_p import AvaP
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.sequence import Sequence
from finegrain.types import Pair
from tests.objectives.test_ava_d import answer
from tests.objectives.test_ava_p import PAIR

GIVEN = PAIR


def test_same_terms() -> None:
    inference = Inference(beta=0.5, td=2.0)
    mine = RewardFit(Gaussian(), AvaP(inference=inference))(GIVEN)
    theirs = Direct(inference=inference, ranking=LogSigmoid())(GIVEN)
    assert isinstance(mine, dict)
    assert mine.keys() == theirs.keys()
    for name, term in theirs.items():
        torch.testing.assert_close(mine[name].value, term.value)
        torch.testing.assert_close(mine[name].count, term.count)
        assert mine[name].coefficient == term.coefficient


def test_prior_and_head_start_where_the_inference_says() -> None:
    mine, theirs = AvaP().start(Gaussian()), Inference().start(Uniform())
    assert mine is not None
    assert theirs is not None
    torch.testing.assert_close(mine.statistics(GIVEN)["td_std"], theirs.statistics(GIVEN)["td_std"])
    assert AvaP(inference=Inference(scale=UnitScale())).start(Gaussian()) is None


def test_what_the_scorer_computes_depends_on_the_head_s_weight() -> None:
    inference = Inference()
    assert AvaP(inference=inference).action_value(Gaussian()) is None
    asked = AvaP(inference=inference).action_value(Gaussian(reward_weight=Attention()))
    assert asked == inference.needs_logits(Attention()) is not None


def test_what_held_out_answers_say_is_a_mean_row_by_row() -> None:
    """Of both answers of the first row; the second row's rejected answer has one token and says nothing."""
    chosen = answer([[0.5, 0.25, 0.8], [0.9, 0.1]], [[0.3, -0.2, 0.4], [1.0, 0.0]], [[1.0, 0.5, 1.0], [2.0, 1.0]]).answer
    rejected = answer([[0.1, 0.9], [0.5]], [[1.0, -0.5], [0.0]], [[1.0, 2.0], [1.0]]).answer
    good, bad = (Inference().surprise(side).tolist() for side in (chosen, rejected))
    found = AvaP().measures(Gaussian(), Pair(sides={"chosen": chosen, "rejected": rejected}))["td_square"]
    assert found.tolist() == pytest.approx([(good[0] + bad[0]) / 2, good[1]])


def test_needs_a_gaussian_head() -> None:
    assert RewardFit(Gaussian(), AvaP()).needs == {"logp"}
    with pytest.raises(UsageError, match="Gaussian head"):
        RewardFit(Sequence(), AvaP())
