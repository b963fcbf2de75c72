"""rounds:best-of-n: best against worst; ties, and prompts with fewer than two scores, are left out and counted."""

from math import nan

import pytest

from finegrain.errors import UsageError
from finegrain.rounds.best_of_n import BestOfN
from finegrain.rounds.context import RoundRow
from tests.rounds.told import ToldRound


def test_best_against_worst() -> None:
    samples = [["a", "b", "c"]] * 4 + [["a", "a", "b"]]
    rewards = [[1, 3, 2], [2, 2, 2], [nan, 5, nan], [nan, 4, 3], [9, 1, 4]]
    told = ToldRound([], samples, rewards)
    assert BestOfN(reward="judge", per_prompt=3)(told) == [
        RoundRow(0, {"chosen": "b", "rejected": "a"}, {"reward_chosen": 3.0, "reward_rejected": 1.0}),
        RoundRow(3, {"chosen": "b", "rejected": "c"}, {"reward_chosen": 4.0, "reward_rejected": 3.0}),
    ]
    assert told.counted == {"samples_without_a_score": 3, "left out: tie": 2, "left out: unscored": 1}, "one text with two scores is a tie"
    assert (told.asked["reward"], told.asked["scored"], told.asked["count"]) == ("judge", samples, 3)


def test_a_reward_is_needed() -> None:
    for reward, words in (("", "needs a reward"), ("column:x", "only the answers of the data")):
        with pytest.raises(UsageError, match=words):
            BestOfN(reward=reward).check()
    BestOfN(reward="mine.py:judge").check()
    with pytest.raises(UsageError, match="per_prompt"):
        BestOfN(per_prompt=1)
