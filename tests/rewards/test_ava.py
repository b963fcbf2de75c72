"""AVA-d and AVA-p as reward models are AVA-d and AVA-p as objectives, for a Gaussian head."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.objectives.ava_d import AvaD as DirectD
from finegrain.objectives.ava_p import AvaP as DirectP
from finegrain.ops.bayesian_irl import Inference, UnitScale
from finegrain.ops.contrast import LogSigmoid
from finegrain.ops.reward_weight import Attention, Uniform
from finegrain.rewards.ava_d import AvaD
from finegrain.rewards.ava_p import AvaP
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.gaussian import Gaussian
from finegrain.rewards.sequence import Sequence
from finegrain.types import Pair
from tests.objectives.test_ava_d import WORKED
from tests.objectives.test_ava_p import PAIR


@pytest.mark.parametrize(("loss", "direct", "given"), [(AvaD, DirectD, WORKED), (AvaP, partial(DirectP, ranking=LogSigmoid()), PAIR)], ids=["d", "p"])
def test_same_terms(loss: Any, direct: Any, given: Pair) -> None:
    inference = Inference(beta=0.5, td=2.0)
    mine = RewardFit(Gaussian(), loss(inference=inference))(given)
    theirs = direct(inference=inference)(given)
    assert isinstance(mine, dict)
    assert mine.keys() == theirs.keys()
    for name, term in theirs.items():
        torch.testing.assert_close(mine[name].value, term.value)
        torch.testing.assert_close(mine[name].count, term.count)
        assert mine[name].coefficient == term.coefficient


@pytest.mark.parametrize(("loss", "given"), [(AvaD, WORKED), (AvaP, PAIR)], ids=["d", "p"])
def test_prior_and_head_start_where_the_inference_says(loss: Any, given: Pair) -> None:
    mine, theirs = loss().start(Gaussian()), Inference().start(Uniform())
    assert mine is not None
    assert theirs is not None
    torch.testing.assert_close(mine.statistics(given)["td_std"], theirs.statistics(given)["td_std"])
    assert loss(inference=Inference(scale=UnitScale())).start(Gaussian()) is None


@pytest.mark.parametrize("loss", [AvaD, AvaP])
def test_what_the_scorer_computes_depends_on_the_head_s_weight(loss: Any) -> None:
    inference = Inference()
    assert loss(inference=inference).action_value(Gaussian()) is None
    asked = loss(inference=inference).action_value(Gaussian(reward_weight=Attention()))
    assert asked == inference.needs_logits(Attention()) is not None


@pytest.mark.parametrize("loss", [AvaD, AvaP])
def test_needs_a_gaussian_head(loss: Any) -> None:
    assert RewardFit(Gaussian(), loss()).needs == {"logp"}
    with pytest.raises(UsageError, match="Gaussian head"):
        RewardFit(Sequence(), loss())


def test_what_held_out_answers_say_of_the_worked_case() -> None:
    """Differences 0.6931 and -1.1632 under N(0.3, 1) and N(-0.2, 0.5^2)."""
    found = AvaD().measures(Gaussian(), WORKED)
    assert found["td_square"].item() == pytest.approx(((0.6931 - 0.3) ** 2 + ((-1.1632 + 0.2) / 0.5) ** 2) / 2, abs=1e-3)
    assert found["td_nll"].item() == pytest.approx((0.9962 + 2.0811) / 2, abs=1e-3)


def test_an_answer_of_one_token_says_nothing() -> None:
    side = WORKED.answer
    alone = Pair(sides={"answer": replace(side, mask=torch.tensor([[True, False, False]]))})
    assert all(value.isnan().all() for value in AvaD().measures(Gaussian(), alone).values())
    pair = Pair(sides={"chosen": alone.answer, "rejected": side})
    assert AvaP().measures(Gaussian(), pair)["td_square"].item() == pytest.approx(AvaD().measures(Gaussian(), WORKED)["td_square"].item())
