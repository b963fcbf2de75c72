"""Public pairs: who is chosen, and what the strength of the preference becomes. Test of data/convert/pairs.py."""

import math
from itertools import permutations

import pytest

from finegrain.data.formats import recognise, rows_of_shape
from finegrain.data.left_out import LeftOut
from finegrain.data.records import Shape, Turn
from finegrain.errors import DataError
from tests.data.published import BINARIZED, HELPSTEER2_PREFERENCE, HELPSTEER3, NECTAR, PKU, REWARD_BENCH, REWARD_BENCH_2, SHP, STRENGTH


def convert(row, shape=Shape.PREFERENCE):
    return rows_of_shape(recognise(row), shape, row)


def words(row):
    """Chosen and rejected."""
    return tuple(row.answers[role].content[0].content for role in ("chosen", "rejected"))


def swapped(row, first, second):
    """The row with the contents of two sets of columns exchanged."""
    names = [(name, name.replace(first, second)) for name in row if first in name and name.replace(first, second) in row]
    return {**row, **{a: row[b] for a, b in names}, **{b: row[a] for a, b in names}}


def test_strength_of_hh():
    (row,) = convert(STRENGTH)
    assert words(row) == ("Sure: a short one", "No.")
    assert row.prompt == (Turn("user", "Hi, got a joke?"),)
    assert row.columns == {"strength": 1.7, "strength_std": 0.6}


@pytest.mark.parametrize(("rejected", "reason"), [
    (["Hi, got a joke?"], LeftOut.UNEQUAL_TURNS),
    (["Hi, got a joke?", " "], LeftOut.EMPTY_TURN),
    (["", "No."], LeftOut.EMPTY_TURN),
])  # fmt: skip
def test_hh_turns_of_unequal_number_or_empty_give_nothing(rejected, reason):
    assert convert({**STRENGTH, "rejected": rejected}) == [reason]


def test_hh_turns_that_end_with_the_human_are_an_error():
    with pytest.raises(DataError, match=r"alternate .*, found 1"):
        convert({**STRENGTH, "chosen": ["a"], "rejected": ["b"]})


def test_binarized_scores_become_a_margin_and_equal_ones_a_tie():
    (row,) = convert(BINARIZED)
    assert (words(row), row.prompt) == (("7", "8"), (Turn("user", "Name a prime."),))
    assert (row.columns["margin"], row.columns["tie"]) == (6.0, 0.0)
    tie = {**BINARIZED, "score_rejected": 9.0}
    assert (convert(tie)[0].columns["margin"], convert(tie)[0].columns["tie"]) == (0.0, 1.0)
    with pytest.raises(DataError, match="column 'score_chosen': expected a number, found 'N/A'"):
        convert({**BINARIZED, "score_chosen": "N/A"})


def test_a_tie_tells_neither_labels_nor_demonstrations():
    tie = {**BINARIZED, "score_rejected": 9.0}
    assert convert(tie, Shape.UNPAIRED) == convert(tie, Shape.DEMONSTRATION) == [LeftOut.NO_PREFERENCE]
    assert [row.columns["label"] for row in convert(BINARIZED, Shape.UNPAIRED)] == [1.0, 0.0]


@pytest.mark.parametrize(("row", "first", "second", "column"), [
    (HELPSTEER2_PREFERENCE, "response_1", "response_2", "preference_strength"),
    ({**HELPSTEER3, "individual_preference": []}, "response1", "response2", "overall_preference"),
])  # fmt: skip
def test_strength_and_its_negative_with_swapped_answers_are_one_pair(row, first, second, column):
    for strength in (1, 2, 3, -1, -3):
        one = convert({**row, column: strength})
        assert one == convert({**swapped(row, first, second), column: -strength})
        assert one != convert({**row, column: -strength})
        assert words(one[0]) == ((row[second], row[first]) if strength > 0 else (row[first], row[second]))
        assert one[0].columns == {"strength": abs(strength), "margin": abs(strength), "tie": 0.0}
    assert convert({**row, column: 0})[0].columns == {"strength": 0.0, "margin": 0.0, "tie": 1.0}
    with pytest.raises(DataError, match=f"column '{column}': expected a number in -3..3, found -100"):
        convert({**row, column: -100})


def test_label_prob_is_the_share_of_annotators():
    assert convert(HELPSTEER3)[0].columns["label_prob"] == (1 + 1 + 0.5 + 0) / 4
    other = {**HELPSTEER3, "overall_preference": -1}
    assert convert(other)[0].columns["label_prob"] == 1 - (1 + 1 + 0.5 + 0) / 4


def test_helpsteer2_prompts_of_several_turns():
    prompt = "What?\n\nTell.\n<extra_id_1>Assistant\nThis.\n<extra_id_1>User\nAnd that?"
    turns = (Turn("user", "What?\n\nTell."), Turn("assistant", "This."), Turn("user", "And that?"))
    for end in ("", "\n<extra_id_1>Assistant", "\n<extra_id_1>Assistant\n"):
        assert convert({**HELPSTEER2_PREFERENCE, "prompt": prompt + end})[0].prompt == turns


def test_reward_bench():
    (row,) = convert(REWARD_BENCH)
    assert (words(row), row.prompt, row.columns) == (("4", "5"), (Turn("user", "2+2?"),), {})
    (row,) = convert({**REWARD_BENCH, "prompt": ["1+1?", "2", "2+2?"]})
    assert row.prompt == (Turn("user", "1+1?"), Turn("assistant", "2"), Turn("user", "2+2?"))


def test_reward_bench_2_compares_right_with_wrong_alone():
    rows = convert(REWARD_BENCH_2)
    assert [words(row) for row in rows] == [("red", "brown"), ("blue", "brown")]
    assert [row.columns for row in rows] == [{"weight": 0.5}] * 2
    labelled = [(row.answers["answer"].content[0].content, row.columns["label"]) for row in convert(REWARD_BENCH_2, Shape.UNPAIRED)]
    assert labelled == [("red", 1.0), ("brown", 0.0), ("blue", 1.0)]
    assert convert({**REWARD_BENCH_2, "chosen": []}) == [LeftOut.NO_RIGHT_ANSWER]
    assert convert({**REWARD_BENCH_2, "rejected": []}) == [LeftOut.NO_WRONG_ANSWER]
    assert convert({**REWARD_BENCH_2, "chosen": [], "rejected": []}) == [LeftOut.NO_ANSWER]


def test_shp_labels_flip_when_the_answers_are_swapped():
    (row,) = convert(SHP)
    assert words(row) == ("Gluten relaxes.", "Tradition.")
    assert row.columns == {"margin": math.log(17), "score_ratio": 17.0, "chosen_score": 340.0, "rejected_score": 20.0}
    other = swapped(SHP, "_A", "_B")
    assert convert({**other, "labels": 0}) == [row]
    assert words(convert(other)[0]) == ("Tradition.", "Gluten relaxes.")
    with pytest.raises(DataError, match="column 'labels': expected 0 or 1, found 2"):
        convert({**SHP, "labels": 2})
    with pytest.raises(DataError, match="expected a positive number, found 0"):
        convert({**SHP, "score_ratio": 0})


def test_nectar_ranks_whatever_their_order():
    rows = convert(NECTAR)
    assert [words(row) for row in rows] == [("7", "2, I think"), ("7", "9"), ("2, I think", "9")]
    assert [row.columns["weight"] for row in rows] == [2 / (3 * 2)] * 3
    assert rows[0].prompt == (Turn("user", "Name a prime."),)
    for answers in permutations(NECTAR["answers"]):
        assert convert({**NECTAR, "answers": list(answers)}) == rows
    level = [{**answer, "rank": 1.0} for answer in NECTAR["answers"]]
    assert {row.columns["tie"] for row in convert({**NECTAR, "answers": level})} == {1.0}
    assert convert({**NECTAR, "answers": level[::-1]}) == convert({**NECTAR, "answers": level})
    assert [convert({**NECTAR, "answers": level[:count]}) for count in (1, 0)] == [[LeftOut.ONE_ANSWER], [LeftOut.NO_ANSWER]]


def test_pku_orders_may_contradict_each_other():
    helpful, harmless = convert(PKU)
    assert words(helpful) == ("Use a pin.", "Ask a locksmith.")
    assert words(harmless) == words(helpful)[::-1]
    flags = {"is_chosen_safe": 0.0, "is_rejected_safe": 1.0, "chosen_unsafe": 1.0, "rejected_unsafe": -1.0}
    assert helpful.columns == {"helpful": 1.0, "harmless": 0.0, **flags, "chosen_severity": 1.0, "rejected_severity": 0.0}
    assert harmless.columns["harmless"] == 1.0
    assert (harmless.columns["chosen_unsafe"], harmless.columns["rejected_unsafe"]) == (-1.0, 1.0)
    assert (harmless.columns["is_chosen_safe"], harmless.columns["is_rejected_safe"]) == (1.0, 0.0)


def test_pku_orders_that_agree_are_two_pairs_still():
    agreeing = {**PKU, "better_response_id": 0}
    assert [words(row) for row in convert(agreeing)] == [("Ask a locksmith.", "Use a pin.")] * 2
    assert [row.answers["answer"].content[0].content for row in convert(agreeing, Shape.DEMONSTRATION)] == ["Ask a locksmith."]
    assert convert(PKU, Shape.DEMONSTRATION) == [LeftOut.BETTER_NOT_SAFER]
    assert convert({**agreeing, "is_response_0_safe": False}, Shape.DEMONSTRATION) == [LeftOut.UNSAFE]
