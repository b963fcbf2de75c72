"""rounds:selm: best and worst of the generated answer and a pair; the generated answer stays; one best and worst answer is left out."""

from math import nan

import pytest

from finegrain.errors import UsageError
from finegrain.rounds.context import Given, RoundRow
from finegrain.rounds.selm import Selm
from tests.rounds.told import ToldRound

CHOSEN, REJECTED = Given("chosen"), Given("rejected")


class ToldTwo(ToldRound):
    """With another answer for each role."""

    def given(self, role: str) -> list[str]:
        return [role] * len(self.samples)


def rows_of(rewards: list[list[float]], samples: list[str]) -> tuple[list[RoundRow], ToldRound]:
    """Rewards of the chosen, the generated and the rejected answer."""
    told = ToldTwo([], [[text] for text in samples], rewards)
    return Selm(reward="judge")(told), told


def test_best_and_worst_of_three() -> None:
    rows, told = rows_of([[2, 3, 1], [3, 1, 2], [3, 2, 1]], ["new", "new", "new"])
    assert [row.answers for row in rows] == [
        {"chosen": "new", "rejected": REJECTED, "generated": "new"},
        {"chosen": CHOSEN, "rejected": "new", "generated": "new"},
        {"chosen": CHOSEN, "rejected": REJECTED, "generated": "new"},
    ]
    assert rows[1].columns == {"reward_chosen": 3.0, "reward_rejected": 1.0}
    assert told.counted == {"answers_without_a_score": 0, "generated_best": 1, "generated_worst": 1}
    assert told.asked["temperature"] == 0.0
    assert told.asked["count"] == 1


def test_what_is_left_out() -> None:
    rows, told = rows_of([[1, 1, 1], [nan, 2, nan], [nan, 2, 1]], ["new", "new", "rejected"])
    assert rows == [], "of equal scores, of one score, and of one text with two scores"
    assert {name: told.counted[name] for name in ("left out: identical", "left out: unscored")} == {"left out: identical": 2, "left out: unscored": 1}


def test_of_equal_scores_the_order_of_the_data_counts() -> None:
    rows, _ = rows_of([[2, 2, 1], [2, 1, 1]], ["new", "new"])
    assert [(row.answers["chosen"], row.answers["rejected"]) for row in rows] == [(CHOSEN, REJECTED)] * 2


def test_a_reward_is_needed() -> None:
    with pytest.raises(UsageError, match="needs a reward"):
        Selm().check()
