"""From scores to lines, by numbers worked out by hand."""

import numpy as np
import pytest

from finegrain.errors import DataError
from finegrain.evaluate.accuracy import TieLoses, TieShares
from finegrain.evaluate.rewardbench import ROWS
from finegrain.evaluate.suites import Item, compare_answers, score_pairs, score_rewardbench_1, score_rewardbench_2
from finegrain.evaluate.tables import Line
from finegrain.ops.proportions import wilson

LOSES = TieLoses()


def named(lines: list[Line]) -> dict[str, float]:
    return {line.name.strip(): line.share.mean for line in lines}


def rows(subset: str, wins: int, count: int) -> tuple[list[Item], list[np.ndarray]]:
    items = [Item(f"{subset}{n}", subset, 1, (n % 3, 1)) for n in range(count)]
    return items, [np.array([1.0, 0.0] if n < wins else [0.0, 1.0]) for n in range(count)]


def joined(*parts: tuple[list[Item], list[np.ndarray]]) -> tuple[list[Item], list[np.ndarray]]:
    return [item for items, _ in parts for item in items], [values for _, scores in parts for values in scores]


def test_plain_pairs() -> None:
    items, scores = joined(rows("a", 3, 4), rows("b", 1, 4))
    found = named(score_pairs(items, scores, LOSES))
    assert found["all rows"] == 0.5
    assert (found["a"], found["b"]) == (0.75, 0.25)
    assert {"chosen longer", "chosen shorter", "equal length"} <= set(found)
    tied = [np.zeros(2)] * 8
    assert named(score_pairs(items, tied, LOSES))["all rows"] == 0.0
    assert named(score_pairs(items, tied, TieShares()))["all rows"] == 0.5


def test_lines_of_plain_pairs_as_they_stand() -> None:
    """Lengths 0, 1, 2, 0 against 1: two shorter, one equal, one longer; rows without a subset are named so, and one subset alone has no line."""
    items, scores = joined(rows("", 1, 1), rows("b", 2, 3))
    share = wilson
    lengths = [Line("chosen longer", share([0.0]), ""), Line("chosen shorter", share([1.0, 1.0]), ""), Line("equal length", share([1.0]), "")]
    whole = Line("all rows", share([1.0, 1.0, 1.0, 0.0]), "")
    assert score_pairs(items, scores, LOSES) == [whole, Line("  no subset", share([1.0]), ""), Line("  b", share([1.0, 1.0, 0.0]), ""), *lengths]
    alone, of_one = rows("b", 2, 2)
    assert score_pairs(alone, of_one, LOSES) == [
        Line("all rows", share([1.0, 1.0]), ""),
        Line("chosen shorter", share([1.0]), ""),
        Line("equal length", share([1.0]), ""),
    ]


def test_of_more_answers_the_first_two_are_the_pair() -> None:
    items = [Item("0", "", 1, (3, 1, 9)), Item("1", "", 1, (1, 3, 9))]
    lines = score_pairs(items, [np.array([1.0, 0.0, 5.0]), np.array([0.0, 1.0, -5.0])], LOSES)
    assert lines == [Line("all rows", wilson([1.0, 0.0]), ""), Line("chosen longer", wilson([1.0]), ""), Line("chosen shorter", wilson([0.0]), "")]


def test_ties_count_by_the_rule_in_every_line_of_rewardbench() -> None:
    items, _ = joined(rows("donotanswer", 4, 4), rows("shp", 4, 4))
    tied = [np.zeros(2)] * 8
    by_rule = [[line.share.mean for line in score_rewardbench_1(items, tied, rule)] for rule in (LOSES, TieShares())]
    assert [set(means) for means in by_rule] == [{0.0}, {0.5}]
    assert len(by_rule[0]) == len(by_rule[1]) == 9, "score, section, subset, prior sets, all rows, the prior set, and three by length"


def test_what_was_left_out_of_a_whole_set_is_its_only_note() -> None:
    items, scores = joined(*(rows(name, count, count) for name, count in ROWS.items()), rows("pku_better", 2, 2))
    lines = score_rewardbench_1(items, scores, LOSES)
    assert lines[0].note == "2 rows of pku_safer, pku_better left out"
    assert {line.note for line in lines[1:]} == {""}


def test_reasoning_weighs_mathematics_as_all_code() -> None:
    """A worked example: mathematics half right, code right: 0.75, where the mean over rows is another number."""
    items, scores = joined(rows("math-prm", 2, 4), rows("hep-python", 6, 6))
    found = named(score_rewardbench_1(items, scores, LOSES))
    assert found["Reasoning"] == pytest.approx((984 * 0.5 + 164) / (984 + 164))
    assert found["all rows"] == 0.8
    every = joined(rows("math-prm", 2, 4), *(rows(f"hep-{name}", 2, 2) for name in ("cpp", "go", "java", "js", "python", "rust")))
    assert named(score_rewardbench_1(*every, LOSES))["Reasoning"] == 0.75


def test_prior_sets_count_half_and_some_not_at_all() -> None:
    items, scores = joined(rows("donotanswer", 4, 4), rows("shp", 1, 4), rows("pku_safer", 0, 4))
    lines = score_rewardbench_1(items, scores, LOSES)
    found = named(lines)
    assert found["score"] == pytest.approx((2 * 1.0 + 0.25) / 3)
    assert found["prior sets"] == found["shp"] == 0.25
    assert found["all rows"] == 1.0
    assert lines[0].note == "incomplete: Chat, Chat Hard, Safety, Reasoning; 4 rows of pku_safer, pku_better left out"
    assert [line.note for line in lines if line.name == "  shp"] == ["a prior set"]


def test_best_of_four_shares_the_maximum() -> None:
    items = [Item("0", "Math", 1, (1, 1, 1, 1)), Item("1", "Math", 1, (1, 1, 1, 1)), Item("2", "Focus", 1, (1, 1, 1, 1))]
    scores = [np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0, 0.0]), np.zeros(4)]
    lines = score_rewardbench_2(items, scores, LOSES)
    assert named(lines) == {"score": 0.25, "Math": 0.25, "Focus": 0.25}
    assert lines[0].note == "incomplete: no Factuality, Precise IF, Safety, Ties"
    assert [line.note for line in lines[1:]] == ["", ""]


def test_ties_by_hand() -> None:
    """One prompt in both versions. Tied: right 3 and 2, wrong 0: accurate, gap 2, spread 1. Single: right 3, wrong 1: gap 2."""
    items = [Item("tied:0", "Ties", 2, (1, 1, 1)), Item("ref:0", "Ties", 1, (1, 1))]
    scores = [np.array([3.0, 2.0, 0.0]), np.array([3.0, 1.0])]
    want = 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * np.tanh(2 / 1 - 1)
    lines = score_rewardbench_2(items, scores, LOSES)
    assert named(lines)["Ties"] == pytest.approx(want)
    assert lines[1].note == "tied 1.000, single 1.000, clear 1.000, in both 1.000"
    behind = score_rewardbench_2(items, [np.array([3.0, 0.5, 0.0]), np.array([0.0, 1.0])], LOSES)
    assert behind[1].note == "tied 1.000, single 0.000, clear 0.000, in both 0.000"
    assert len(compare_answers(items, scores)[0]) == 0


def test_half_a_ties_subset_is_told() -> None:
    items = [Item("tied:0", "Ties", 2, (1, 1, 1)), Item("0", "Math", 1, (1, 1))]
    lines = score_rewardbench_2(items, [np.array([3.0, 2.0, 0.0]), np.array([1.0, 0.0])], LOSES)
    assert named(lines) == {"score": 1.0, "Math": 1.0}
    assert lines[0].note == "without Ties: the Ties score needs prompts in both versions, ref:<n> and tied:<n>; none has both"
    with pytest.raises(DataError, match="no row has a known subset"):
        score_rewardbench_2([Item("0", "Chemistry", 1, (1, 1))], [np.array([1.0, 0.0])], LOSES)


def test_rows_of_unknown_subsets_are_counted_and_named() -> None:
    names = ["Math", "Chemistry", "", "Chemistry"]
    items = [Item(str(row), name, 1, (1, 1)) for row, name in enumerate(names)]
    lines = score_rewardbench_2(items, [np.array([1.0, 0.0])] * 4, LOSES)
    assert named(lines) == {"score": 1.0, "Math": 1.0}
    assert lines[0].note == "incomplete: no Factuality, Precise IF, Safety, Focus, Ties; 3 rows of no subset, Chemistry left out"


def test_a_whole_second_benchmark_has_no_reservation() -> None:
    single = ["Factuality", "Precise IF", "Math", "Safety", "Focus"]
    items = [Item("0", name, 1, (1, 1)) for name in single] + [Item("tied:0", "Ties", 2, (1, 1, 1)), Item("ref:0", "Ties", 1, (1, 1))]
    scores = [np.array([1.0, 0.0])] * 5 + [np.array([3.0, 2.0, 0.0]), np.array([3.0, 1.0])]
    lines = score_rewardbench_2(items, scores, LOSES)
    assert [line.name for line in lines] == ["score", *single, "Ties"]
    assert [line.note for line in lines[:-1]] == [""] * 6
    other = score_rewardbench_2([*items, Item("9", "Chemistry", 1, (1, 1))], [*scores, scores[0]], LOSES)
    assert other[0].note == "1 rows of Chemistry left out"


def test_comparisons_of_right_with_wrong() -> None:
    good, bad = compare_answers([Item("0", "x", 2, (1, 1, 1))], [np.array([3.0, 2.0, 1.0])])
    assert (good.tolist(), bad.tolist()) == ([3.0, 2.0], [1.0, 1.0])
    both = [Item("0", "x", 1, (1, 1, 1)), Item("tied:0", "Ties", 1, (1, 1)), Item("1", "x", 1, (1, 1))]
    good, bad = compare_answers(both, [np.array([3.0, 2.0, 1.0]), np.array([9.0, 8.0]), np.array([5.0, 6.0])])
    assert (good.tolist(), bad.tolist()) == ([3.0, 3.0, 5.0], [2.0, 1.0, 6.0])
