"""Log odds as a reward: forms, calibration, prefixes, and the optimum that they lead to."""

import itertools

import pytest
import torch

from finegrain.errors import DataError, UsageError
from finegrain.ops.class_odds import ClassReward, Logit, LogProbability, OddsScale, Probability, class_odds, fit_odds, prefix_differences

DRAW = torch.Generator().manual_seed(0)
LOGITS = torch.randn(40, 4, generator=DRAW, dtype=torch.float64) * 3


def test_odds_are_those_of_the_softmax() -> None:
    for label in range(4):
        share = LOGITS.softmax(1)[:, label]
        torch.testing.assert_close(class_odds(LOGITS, label), (share / (1 - share)).log())
        torch.testing.assert_close(Probability()(class_odds(LOGITS, label)), share)
        torch.testing.assert_close(LogProbability()(class_odds(LOGITS, label)), share.log())


def test_two_classes_are_antisymmetric() -> None:
    two, one = LOGITS[:, :2], LOGITS[:, :1]
    for logits in (two, one):
        torch.testing.assert_close(class_odds(logits, 1), -class_odds(logits, 0))
        swapped = Logit(clip=2.0)(class_odds(logits, 1)) + Logit(clip=2.0)(class_odds(logits, 0))
        torch.testing.assert_close(swapped, torch.zeros(40, dtype=torch.float64))
    torch.testing.assert_close(class_odds(one, 1), one[:, 0])
    torch.testing.assert_close(class_odds(LOGITS, 2, independent=True), LOGITS[:, 2])


def test_a_calibrated_logit_has_mean_0_and_std_1_and_a_bound() -> None:
    odds = class_odds(LOGITS, 0)
    scale = fit_odds(odds)
    values = Logit(clip=100.0)(odds, scale)
    assert float(values.mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(values.std()) == pytest.approx(1.0, abs=1e-12)
    bounded = Logit(clip=0.5)(odds, scale)
    assert float(bounded.abs().max()) == 0.5
    torch.testing.assert_close(Logit()(odds), odds.clamp(-3, 3))


def test_temperature() -> None:
    torch.testing.assert_close(class_odds(LOGITS, 1, temperature=2.0), class_odds(LOGITS / 2, 1))
    reward = ClassReward(label="b", temperature=2.0, form=Probability())
    torch.testing.assert_close(reward(reward.odds(LOGITS, "abcd", False)), (LOGITS / 2).softmax(1)[:, 1])


def test_classes_by_name() -> None:
    assert ClassReward().place(["x", "y", "z"]) == 2
    assert ClassReward(label="x").place(["x", "y", "z"]) == 0
    with pytest.raises(UsageError, match="class"):
        ClassReward(label="w").place(["x", "y"])
    with pytest.raises(UsageError, match="none of 2"):
        class_odds(LOGITS[:, :1], 2)


@pytest.mark.parametrize("odds", [[1.0], [2.0, 2.0], [1.0, float("nan")]])
def test_texts_that_give_no_scale(odds: list[float]) -> None:
    with pytest.raises(DataError, match="two different ones"):
        fit_odds(torch.tensor(odds))


def test_prefix_differences_sum_to_the_whole() -> None:
    values = class_odds(LOGITS, 3).tolist()
    assert sum(prefix_differences(values)) == pytest.approx(values[-1], abs=1e-12)
    assert prefix_differences(values)[0] == values[0]
    assert prefix_differences([2.0]) == [2.0]


def kl_regularised(reference: torch.Tensor, reward: torch.Tensor, beta: float) -> torch.Tensor:
    """The maximum of E reward - beta KL(pi || reference) over distributions, by gradient ascent on logits: nothing of the closed form."""
    logits = reference.log().clone().requires_grad_()
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logp = logits.log_softmax(0)
        value = -(logp.exp() * (reward - beta * (logp - reference.log()))).sum()
        value.backward()
        return value

    optimiser.step(loss)  # type: ignore[arg-type]
    return logits.detach().softmax(0)


def test_the_optimum_of_the_exact_belief_is_the_rewarded_distribution() -> None:
    """Strings of 3 of 4 letters, two languages: at beta 1 the policy that starts as one of them becomes the other; at another beta it does not."""
    strings = list(itertools.product(range(4), repeat=3))
    languages = torch.rand(2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).add(0.1)
    languages = languages / languages.sum(1, keepdim=True)
    original, simple = (torch.tensor([float(torch.stack([own[letter] for letter in one]).prod()) for one in strings]).double() for own in languages)
    original, simple = original / original.sum(), simple / simple.sum()
    belief = torch.stack([original.log(), simple.log()], 1)  # of the best discriminator of as many texts of both
    odds = class_odds(belief, 1)
    torch.testing.assert_close(Logit(clip=50.0)(odds), (simple / original).log())
    torch.testing.assert_close(kl_regularised(original, odds, 1.0), simple, atol=1e-6, rtol=1e-4)
    assert float((kl_regularised(original, odds, 3.0) - simple).abs().sum()) > 0.05
    saturated = Probability()(odds)
    assert float((kl_regularised(original, saturated, 1.0) - simple).abs().sum()) > 0.05


def test_scale_without_calibration_changes_nothing() -> None:
    odds = class_odds(LOGITS, 0)
    torch.testing.assert_close(Logit(clip=99.0)(odds, OddsScale(0.0, 1.0, 0)), odds)
