"""AVA-d as a reward model is AVA-d as an objective, for a Gaussian head."""

from dataclasses import replace

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.objectives.ava_d import AvaD as Direct
from finegrain.ops.bayesian_irl import Inference, UnitScale
from finegrain.ops.reward_weight import Attention, Uniform
from finegrain.rewards.ava_d import AvaD
from finegrain.rewards.ava_p import AvaP
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.sequence import Sequence
from finegrain.types import Pair
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


def test_prior_and_head_start_where_the_inference_says() -> None:
    mine, theirs = AvaD().start(Gaussian()), Inference().start(Uniform())
    assert mine is not None
    assert theirs is not None
    torch.testing.assert_close(mine.statistics(GIVEN)["td_std"], theirs.statistics(GIVEN)["td_std"])
    assert AvaD(inference=Inference(scale=UnitScale())).start(Gaussian()) is None


def test_what_the_scorer_computes_depends_on_the_head_s_weight() -> None:
    inference = Inference()
    assert AvaD(inference=inference).action_value(Gaussian()) is None
    asked = AvaD(inference=inference).action_value(Gaussian(reward_weight=Attention()))
    assert asked == inference.needs_logits(Attention()) is not None


def test_needs_a_gaussian_head() -> None:
    assert RewardFit(Gaussian(), AvaD()).needs == {"logp"}
    with pytest.raises(UsageError, match="Gaussian head"):
        RewardFit(Sequence(), AvaD())


def test_what_held_out_answers_say_of_the_worked_case() -> None:
    """Differences 0.6931 and -1.1632 under N(0.3, 1) and N(-0.2, 0.5^2)."""
    found = AvaD().measures(Gaussian(), GIVEN)
    assert found["td_square"].item() == pytest.approx(((0.6931 - 0.3) ** 2 + ((-1.1632 + 0.2) / 0.5) ** 2) / 2, abs=1e-3)
    assert found["td_nll"].item() == pytest.approx((0.9962 + 2.0811) / 2, abs=1e-3)


def test_an_answer_of_one_token_says_nothing() -> None:
    side = GIVEN.answer
    alone = Pair(sides={"answer": replace(side, mask=torch.tensor([[True, False, False]]))})
    assert all(value.isnan().all() for value in AvaD().measures(Gaussian(), alone).values())
    pair = Pair(sides={"chosen": alone.answer, "rejected": side})
    assert AvaP().measures(Gaussian(), pair)["td_square"].item() == pytest.approx(AvaD().measures(Gaussian(), GIVEN)["td_square"].item())
