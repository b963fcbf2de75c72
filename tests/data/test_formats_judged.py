"""Public ratings and labelled steps. Test of data/convert/rated.py, data/convert/steps.py."""

import math

import pytest

from finegrain.data.formats import recognise, rows_of_shape
from finegrain.data.left_out import LeftOut, select_examples
from finegrain.data.records import Shape, Turn
from finegrain.data.shapes import Choices
from finegrain.errors import DataError
from tests.data.published import HELPSTEER2, MATH_SHEPHERD, PRM800K, RATED, RED_TEAM, STEPWISE, ULTRA


def convert(row, shape):
    return rows_of_shape(recognise(row), shape, row)


def said(row):
    return "".join(turn.content for turn in row.answers["answer"].content)


def marked(row):
    """(text, label) of every labelled step."""
    return [(said(row)[start:end], label) for start, end, label, *_ in row.answers["answer"].spans]


def labels(row, neutral="wrong"):
    """The label of every answer, or why it has none."""
    made = rows_of_shape(recognise(row), Shape.UNPAIRED, row, Choices(neutral))
    return [one if isinstance(one, LeftOut) else one.columns["label"] for one in made]


def prm(*steps, reason="solution", **more):
    return {**PRM800K, **more, "label": {"steps": list(steps), "finish_reason": reason}}


def step(*rated, chosen=0, human=None):
    return {"completions": [{"text": text, "rating": rating} for text, rating in rated], "human_completion": human, "chosen_completion": chosen}


def test_helpsteer2_ratings_row_by_row():
    (row,) = convert(HELPSTEER2, Shape.RATED)
    assert (row.prompt, said(row)) == ((Turn("user", "Explain tides."),), "The Moon pulls.")
    assert row.columns == {
        "rating/helpfulness": 4.0, "rating/correctness": 4.0, "rating/coherence": 4.0, "rating/complexity": 2.0, "rating/verbosity": 1.0,
    }  # fmt: skip
    assert convert(RATED, Shape.RATED)[0].columns == {"rating/clear": 3.0}
    with pytest.raises(DataError, match="rating 'clear': expected a number, found 'high'"):
        convert({**RATED, "ratings": {"clear": "high"}}, Shape.RATED)


def test_ultrafeedback_ratings_are_text_and_may_be_missing():
    good, bad = convert(ULTRA, Shape.RATED)
    assert good.columns == {"rating/helpfulness": 5.0, "rating/honesty": 4.0, "rating/overall": 8.5}
    assert (said(bad), bad.columns["rating/helpfulness"]) == ("8", 1.0)
    assert math.isnan(bad.columns["rating/honesty"])
    lacking = {**ULTRA["completions"][1], "annotations": {"helpfulness": {"Rating": "1"}}}
    _, bad = convert({**ULTRA, "completions": [ULTRA["completions"][0], lacking]}, Shape.RATED)
    assert math.isnan(bad.columns["rating/honesty"])


def test_red_team_attempts_are_rated_and_never_demonstrations():
    (row,) = convert(RED_TEAM, Shape.RATED)
    assert row.columns == {"rating/attack_success": 1.0, "rating/min_harmlessness": -1.5}
    assert row.answers["answer"].content == (Turn("assistant", "No."), Turn("user", "Please"), Turn("assistant", "I would rather not."))
    with pytest.raises(DataError, match="attacks, not demonstrations"):
        convert(RED_TEAM, Shape.DEMONSTRATION)
    for shape in (Shape.PREFERENCE, Shape.UNPAIRED, Shape.STEPS):
        with pytest.raises(DataError, match="red-team-attempts has n"):
            convert(RED_TEAM, shape)


@pytest.mark.parametrize("row", [HELPSTEER2, ULTRA, PRM800K])
def test_what_is_judged_is_no_demonstration(row):
    with pytest.raises(DataError, match="labelled answers, not demonstrations"):
        convert(row, Shape.DEMONSTRATION)
    with pytest.raises(DataError, match="has no pairs"):
        convert(row, Shape.PREFERENCE)


def test_prm800k_gives_a_trajectory_for_each_alternative_of_the_open_step():
    wrong, right = convert(PRM800K, Shape.STEPS)
    assert marked(wrong) == [("3*4=12.", 1.0), ("2+12=15.", -1.0)]
    assert marked(right) == [("3*4=12.", 1.0), ("2+12=14.", 1.0)]
    assert wrong.prompt == (Turn("user", "2+3*4?"),)
    assert said(wrong) == "3*4=12.\n2+12=15."
    assert wrong.columns == {"steps": 2.0, "unlabelled_steps": 0.0}
    assert [row.columns["label"] for row in convert(PRM800K, Shape.UNPAIRED)] == [0.0, 1.0]


def test_prm800k_takes_the_chosen_alternative_and_the_human_step():
    row = prm(step(("a", -1), ("b", 0), chosen=1), step(("c", -1), chosen=None, human={"text": "d", "rating": None}), step(("e", None)))
    (one,) = convert(row, Shape.STEPS)
    assert (said(one), marked(one)) == ("b\nd\ne", [("b", -1.0), ("d", 1.0)])
    assert one.columns == {"steps": 3.0, "unlabelled_steps": 1.0}
    empty = {"completions": None, "human_completion": None, "chosen_completion": None}
    assert marked(convert(prm(step(("a", 1)), empty, step(("b", 1))), Shape.STEPS)[0]) == [("a", 1.0), ("b", 1.0)]


@pytest.mark.parametrize(("row", "reason"), [
    (prm(step(("a", 1)), is_quality_control_question=True), LeftOut.QUALITY_CONTROL),
    (prm(step(("a", 1)), is_initial_screening_question=True), LeftOut.SCREENING),
    (prm(step(("a", 1)), reason="bad_problem"), LeftOut.BAD_PROBLEM),
    (prm(), LeftOut.NO_STEPS),
])  # fmt: skip
def test_prm800k_rows_that_teach_nothing(row, reason):
    assert convert(row, Shape.STEPS) == [reason]


def test_neutral_steps_are_a_choice():
    right, neutral, wrong = prm(step(("a", 1))), prm(step(("a", 1)), step(("b", 0))), prm(step(("a", 0)), step(("b", -1)))
    assert [labels(row, "wrong") for row in (right, neutral, wrong)] == [[1.0], [0.0], [0.0]]
    assert [labels(row, "right") for row in (right, neutral, wrong)] == [[1.0], [1.0], [0.0]]
    assert [labels(row, "ignore") for row in (right, neutral, wrong)] == [[1.0], [1.0], [0.0]]
    alone = prm(step(("a", 0)))
    assert [labels(alone, choice) for choice in ("wrong", "right", "ignore")] == [[0.0], [1.0], [LeftOut.UNDECIDED_STEPS]]


def test_neutral_steps_are_settled_in_the_spans():
    row = prm(step(("a", 0)), step(("b", 1)))
    made = {choice: select_examples(rows_of_shape(recognise(row), Shape.STEPS, row, Choices(choice)))[0] for choice in ("wrong", "right", "ignore")}
    assert {choice: marked(one) for choice, one in made.items()} == {
        "wrong": [("a", -1.0), ("b", 1.0)], "right": [("a", 1.0), ("b", 1.0)], "ignore": [("b", 1.0)],
    }  # fmt: skip
    assert all((one.notes, one.columns) == (("neutral_step",), {"steps": 2.0, "unlabelled_steps": 0.0}) for one in made.values())
    assert convert(PRM800K, Shape.STEPS)[0].notes == ()


def test_an_unlabelled_step_leaves_the_answer_open_unless_another_is_wrong():
    assert labels(prm(step(("a", 1)), step(("b", None)))) == [LeftOut.UNDECIDED_STEPS]
    assert labels(prm(step(("a", -1)), step(("b", None)))) == [0.0]


def test_math_shepherd_signs_stand_where_the_markers_are():
    (row,) = convert(MATH_SHEPHERD, Shape.STEPS)
    assert row.prompt == (Turn("user", "2+3*4?"),)
    assert marked(row) == [("Step 1: 3*4=12.", 1.0), ("Step 2: 2+12=15. The answer is: 15", -1.0)]
    assert said(row) == "Step 1: 3*4=12. \nStep 2: 2+12=15. The answer is: 15"
    assert [one.columns["label"] for one in convert(MATH_SHEPHERD, Shape.UNPAIRED)] == [0.0]


@pytest.mark.parametrize(("change", "message"), [
    ({"label": "2+3*4? Step 1: 3*4=13. +\nStep 2: 2+12=15. The answer is: 15 -"}, "step 1 has"),
    ({"label": "2+3*4? Step 1: 3*4=12. +\nStep 2: 2+12=15. The answer is: 15 ?"}, r"step 2 has '\?'"),
    ({"label": MATH_SHEPHERD["label"] + " more"}, "ends with ' more'"),
    ({"input": "no steps ки", "label": "no steps +"}, "then 'Step 1:'"),
    ({"input": "no marker", "label": "no marker"}, "then 'Step 1:'"),
])  # fmt: skip
def test_math_shepherd_texts_that_do_not_agree(change, message):
    with pytest.raises(DataError, match=message):
        convert({**MATH_SHEPHERD, **change}, Shape.STEPS)


def test_labelled_steps_of_your_own():
    (row,) = convert(STEPWISE, Shape.STEPS)
    assert marked(row) == [("3*4=12.", 1.0), ("So 15.", -1.0)]
    assert row.columns == {"steps": 3.0, "unlabelled_steps": 1.0}
    with pytest.raises(DataError, match="one label for each of 3 steps"):
        convert({**STEPWISE, "labels": [True]}, Shape.STEPS)
    with pytest.raises(DataError, match="expected 1, 0, -1 or null, found 5"):
        convert({**STEPWISE, "labels": [1, 0, 5]}, Shape.STEPS)
