"""rounds:self-play: a pair per prompt, but where the sample is the demonstration."""

from finegrain.rounds.context import Given, RoundRow
from finegrain.rounds.self_play import SelfPlay
from tests.rounds.told import ToldRound


def test_demonstration_against_sample() -> None:
    told = ToldRound(["a", "b", " c"], [["x"], ["b"], ["c"]])
    assert SelfPlay(max_new_tokens=7, temperature=0.5)(told) == [
        RoundRow(0, {"chosen": Given("answer"), "rejected": "x"}),
        RoundRow(2, {"chosen": Given("answer"), "rejected": "c"}),
    ]
    assert told.counted == {"left out: identical": 1}, "a space is a difference: other tokens"
    assert told.asked == {"role": "answer", "count": 1, "max_new_tokens": 7, "temperature": 0.5}
