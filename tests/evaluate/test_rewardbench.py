"""RewardBench: sections, score and what is said about part of the rows."""

import numpy as np
import pytest

from finegrain.errors import DataError
from finegrain.evaluate.accuracy import TieShares
from finegrain.evaluate.rewardbench import PRIOR_REMOVED, ROWS, SECTIONS, leaderboard_score, prior_score, rewardbench, section_scores
from finegrain.evaluate.tables import format_share, make_lines, markdown
from finegrain.ops.proportions import wilson
from finegrain.ops.stats import Interval

NAMES = [name for name, rows in ROWS.items() for _ in range(rows)]
"""The subset of every published row."""


def shares(**accuracies: float) -> dict[str, Interval]:
    return {name.replace("_", "-"): Interval(value, None, None, 0) for name, value in accuracies.items()}


def test_the_published_set() -> None:
    assert len(NAMES) == 2985
    assert [sum(weights.values()) for weights in SECTIONS.values()] == [358, 456, 740, 984 + 984]


def test_worked_reasoning() -> None:
    """Half of mathematics and all code: 3/4 as a section, 0.844 over rows."""
    code = {name for name in SECTIONS["Reasoning"] if name.startswith("hep")}
    subsets = [name for name in NAMES if name in SECTIONS["Reasoning"]]
    half = (np.arange(len(subsets)) % 2 == 0).astype(float)
    right = np.array([1.0 if name in code else value for name, value in zip(subsets, half, strict=True)])
    got = rewardbench(right, np.full(len(right), 0.5), subsets)
    assert abs(got.sections["Reasoning"].mean - 0.75) < 1e-3
    assert abs(got.row_accuracy.mean - 0.844) < 1e-3
    exact = section_scores(shares(**{name.replace("-", "_"): 1.0 for name in code}, math_prm=0.5))
    assert exact["Reasoning"].mean == 0.75


def test_equal_accuracies_give_that_score() -> None:
    every = section_scores({name: Interval(0.7, 0.6, 0.8, 50) for name in ROWS})
    assert set(every) == set(SECTIONS)
    np.testing.assert_allclose([share.mean for share in every.values()], 0.7)
    score = leaderboard_score(every)
    np.testing.assert_allclose(score.mean, 0.7)
    assert score.low is not None
    assert 0.6 < score.low < 0.7, "many subsets know more than one"


def test_score_with_and_without_prior() -> None:
    sections = {name: Interval(value, None, None, 0) for name, value in zip(SECTIONS, (0.9, 0.5, 0.8, 0.6), strict=True)}
    prior = prior_score(shares(anthropic_harmless=0.0) | {"anthropic_helpful": Interval(0.2, None, None, 0), "shp": Interval(0.4, None, None, 0)})
    assert prior is not None
    np.testing.assert_allclose(prior.mean, 0.3)
    np.testing.assert_allclose(leaderboard_score(sections, prior).mean, (2 * 2.8 + 0.3) / 9)
    np.testing.assert_allclose(leaderboard_score(sections).mean, 0.7)
    assert prior_score({name: Interval(1.0, None, None, 0) for name in PRIOR_REMOVED}) is None


def test_constant_scorer_and_random_scorer() -> None:
    zero = np.zeros(len(NAMES))
    got = rewardbench(zero, zero, NAMES)
    assert (got.score.mean, got.tied) == (0.0, 2985)
    assert rewardbench(zero, zero, NAMES, rule=TieShares()).score.mean == 0.5
    random = rewardbench(*np.random.default_rng(1).normal(size=(2, len(NAMES))), NAMES)
    assert random.score.low is not None
    assert random.score.high is not None
    assert random.score.low < 0.5 < random.score.high


def test_increasing_transforms_change_nothing() -> None:
    chosen, rejected = np.random.default_rng(0).normal(size=(2, len(NAMES)))
    assert rewardbench(chosen, rejected, NAMES) == rewardbench(np.exp(chosen), np.exp(rejected), NAMES)


def test_part_of_the_rows_is_said_to_be_part() -> None:
    names = ["hep-go"] * 82 + ["donotanswer"] * 136 + ["mine"] * 3
    got = rewardbench(np.ones(len(names)), np.zeros(len(names)), names, prior={"shp": wilson([1.0, 0.0])})
    assert set(got.sections) == {"Safety", "Reasoning"}, "a section without rows is absent, not 0"
    assert got.coverage == {"Chat": 0.0, "Chat Hard": 0.0, "Safety": 136 / 740, "Reasoning": 82 / 1431}
    assert list(got.subsets) == ["donotanswer", "hep-go", "mine"]
    table = {line.name.strip(): line for line in make_lines(got)}
    assert table["score"].note == "incomplete: Chat, Chat Hard, Safety, Reasoning"
    assert table["Reasoning"].note == "6% of its rows"
    assert (table["mine"].share, table["mine"].note) == (got.subsets["mine"], "in no section")
    assert "prior sets" in table
    assert table["all rows"].share.rows == len(names)


def test_lines_of_a_whole_run_have_no_reservation() -> None:
    got = rewardbench(np.ones(len(NAMES)), np.zeros(len(NAMES)), NAMES)
    assert {line.note for line in make_lines(got)} == {""}
    assert len(make_lines(got)) == 1 + 4 + 23 + 1


def test_shown_with_its_interval_or_why_not() -> None:
    assert format_share(Interval(0.5, 0.25, 0.75, 10)) == "0.500 [0.250, 0.750]"
    assert format_share(Interval(0.5, None, None, 1)) == "0.500 (no interval: 1 rows)"
    assert format_share(Interval(0.5, None, None, 2)) == "0.500 (no interval)"
    assert format_share(Interval(0.5, 0.25, None, 2)) == format_share(Interval(0.5, None, 0.75, 2)) == "0.500 (no interval)"


def test_markdown_side_by_side() -> None:
    names = ["hep-go"] * 4
    one = rewardbench(np.ones(4), np.zeros(4), names)
    table = markdown({"a": one, "b": rewardbench(np.zeros(4), np.ones(4), names)}).splitlines()
    assert table[0] == "|  | a | b |"
    assert table[2] == "| score | 1.000 [0.510, 1.000] | 0.000 [0.000, 0.490] |"
    assert "| Chat | not scored | not scored |" in table


def test_the_whole_table_of_one_model() -> None:
    got = rewardbench(np.array([1.0, 0.0]), np.zeros(2), ["donotanswer", "mine"], prior={"shp": wilson([1.0, 0.0])})
    assert markdown({"a": got}) == "\n".join(
        [
            "|  | a |",
            "| --- | --- |",
            f"| score | {format_share(got.score)} |",
            "| Chat | not scored |",
            "| Chat Hard | not scored |",
            f"| Safety | {format_share(wilson([1.0]))} |",
            "| Reasoning | not scored |",
            f"| prior sets | {format_share(wilson([1.0, 0.0]))} |",
            f"| all rows | {format_share(wilson([1.0, 0.0]))} |",
            "",
        ]
    )
    names = [(line.name, line.note) for line in make_lines(got)]
    assert names[1:] == [
        ("Safety", "0% of its rows"),
        ("  donotanswer", ""),
        ("mine", "in no section"),
        ("prior sets", ""),
        ("all rows", "1 of 2 rows tied"),
    ]


def test_bad_input() -> None:
    with pytest.raises(DataError, match="two scores and a subset"):
        rewardbench(np.ones(2), np.zeros(2), ["hep-go"])
    with pytest.raises(DataError, match="no row has a known subset"):
        rewardbench(np.ones(1), np.zeros(1), ["mine"])
