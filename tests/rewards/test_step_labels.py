"""Step supervision by hand: which steps count, what their loss is, and what is measured."""

import math
from dataclasses import replace

import pytest
import torch

from finegrain.errors import UsageError
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.step import Step
from finegrain.rewards.step_labels import AllSteps, StepLabels, Supervision, UntilFirstError
from finegrain.rewards.token import Token
from finegrain.types import Pair
from tests.rewards.sides import side

ODDS = [[[7.0], [2.0], [-1.0], [0.5]], [[3.0], [7.0]], [[7.0]]]
IDS = [[0, 0, 1, 2], [0, -1, -1, -1], [-1, -1, -1, -1]]
LABELS = [[1.0, 1.0, -1.0, 1.0], [-1.0, 0.0, 9.0, 9.0], [0.0, 9.0, 9.0, 9.0]]


def judged() -> Pair:
    answer = replace(side(ODDS), segment=torch.tensor(IDS), reward=torch.tensor(LABELS, dtype=torch.float64))
    return Pair(sides={"answer": answer})


def loss(odds: float) -> float:
    return math.log1p(math.exp(-odds))


@pytest.mark.parametrize(
    ("method", "values", "counts"),
    [
        (StepLabels(), [loss(2.0) + loss(1.0) + loss(0.5), loss(-3.0), 0.0], [3.0, 1.0, 0.0]),
        (StepLabels(supervision=UntilFirstError()), [loss(2.0) + loss(1.0), loss(-3.0), 0.0], [2.0, 1.0, 0.0]),
    ],
)
def test_by_hand(method: StepLabels, values: list[float], counts: list[float]) -> None:
    term = method(Step(), judged())["steps"]
    assert term.value.tolist() == pytest.approx(values)
    assert term.count.tolist() == counts


def naive_counted(signs: list[float], supervision: Supervision) -> list[bool]:
    seen, found = False, []
    for sign in signs:
        found.append(sign != 0 and not (seen and isinstance(supervision, UntilFirstError)))
        seen = seen or sign < 0
    return found


@pytest.mark.parametrize("supervision", [AllSteps(), UntilFirstError()])
def test_counted_against_a_loop(supervision: Supervision) -> None:
    signs = torch.randint(-1, 2, (50, 6)).double()
    counted = supervision(signs, torch.ones(50, 6, dtype=torch.bool))
    assert counted.tolist() == [naive_counted(row, supervision) for row in signs.tolist()]


def test_measures() -> None:
    found = StepLabels().measures(Step(), judged())
    nan = float("nan")
    expected = {
        "step_accuracy": [1.0, 0.0, nan],
        "step_always_right": [2 / 3, 0.0, nan],
        "first_error_found": [1.0, 0.0, nan],
        "no_error_found": [nan, nan, nan],
    }
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.tensor(values, dtype=torch.float64), equal_nan=True)
    side = judged().answer
    assert side.reward is not None
    good = StepLabels().measures(Step(), Pair(sides={"answer": replace(side, reward=side.reward.abs())}))["no_error_found"]
    torch.testing.assert_close(good, torch.tensor([0.0, 1.0, nan], dtype=torch.float64), equal_nan=True)


def test_odds_of_nothing_are_not_right_and_one_step_is_a_whole_share() -> None:
    """Log-odds 0 is no yes: the right step is missed, the wrong one found."""
    answer = replace(side([[[0.0]], [[0.0]], [[1.0]]]), segment=torch.tensor([[0], [0], [0]]), reward=torch.tensor([[1.0], [-1.0], [1.0]]).double())
    found = StepLabels().measures(Step(), Pair(sides={"answer": answer}))
    assert found["step_accuracy"].tolist() == [0.0, 1.0, 1.0]
    assert found["step_always_right"].tolist() == [1.0, 0.0, 1.0]
    assert found["first_error_found"][1] == 1.0
    assert found["no_error_found"].tolist() == [0.0, pytest.approx(math.nan, nan_ok=True), 1.0]


def test_another_head_is_refused() -> None:
    with pytest.raises(UsageError, match="Step head"):
        RewardFit(Token(), StepLabels())
