"""Whatever a converter leaves out is named and counted: in the record, in gate.json, in the printed lines, in the guide."""

from pathlib import Path

import pytest

from finegrain.data.formats import recognise, rows_of_shape
from finegrain.data.left_out import LeftOut, select_examples
from finegrain.data.load import Gate, Tokenise, check_rows, load_examples
from finegrain.data.records import Shape
from finegrain.recipes.check_data import describe_report
from tests.data.published import BINARIZED, NECTAR, PKU, PRM800K, REWARD_BENCH_2, STEPWISE, STRENGTH, ULTRA
from tests.data.tiny import byte_level
from tests.tiny import write_rows

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "data.md"

SOLUTIONS = {"question": "2+2?", "ground_truth": "4", "a": {"is_correct": True, "solution": "is 4"}, "b": {"is_correct": False, "solution": "is 5"}}
LABELLED = {"prompt": "2+2? ", "completion": "4", "label": True}
SAFE = {**PKU, "better_response_id": 0}
QA = {
    "question": "When?", "passages": [["t", "First."]], "feedback": {"errors": []}, "preference": [1, 0, 0, 0, 0, 0],
    **{f"prediction {n}": f"answer {n}" for n in range(1, 5)},
}  # fmt: skip
TIE = {**BINARIZED, "score_rejected": BINARIZED["score_chosen"]}

CORRECTED = {"prompt": "2+2? ", "original": "5", "corrected": "4"}
MARKED = {"data": {"text": "4"}, "annotations": [{"completed_by": 1, "result": []}]}

CASES = [
    (Shape.PREFERENCE, QA, {**QA, "preference": [0] * 6}, "no_preference"),
    (Shape.UNPAIRED, BINARIZED, TIE, "no_preference"),
    (Shape.DEMONSTRATION, BINARIZED, TIE, "no_preference"),
    (Shape.PREFERENCE, SOLUTIONS, {**SOLUTIONS, "b": SOLUTIONS["a"]}, "no_wrong_answer"),
    (Shape.PREFERENCE, SOLUTIONS, {**SOLUTIONS, "a": SOLUTIONS["b"]}, "no_right_answer"),
    (Shape.UNPAIRED, SOLUTIONS, {"question": "2+2?", "ground_truth": "4"}, "no_answer"),
    (Shape.PREFERENCE, REWARD_BENCH_2, {**REWARD_BENCH_2, "rejected": []}, "no_wrong_answer"),
    (Shape.PREFERENCE, REWARD_BENCH_2, {**REWARD_BENCH_2, "chosen": []}, "no_right_answer"),
    (Shape.PREFERENCE, NECTAR, {**NECTAR, "answers": NECTAR["answers"][:1]}, "one_answer"),
    (Shape.PREFERENCE, NECTAR, {**NECTAR, "answers": []}, "no_answer"),
    (Shape.RATED, ULTRA, {**ULTRA, "completions": []}, "no_answer"),
    (Shape.PREFERENCE, STRENGTH, {**STRENGTH, "rejected": STRENGTH["rejected"][:1]}, "unequal_turns"),
    (Shape.PREFERENCE, STRENGTH, {**STRENGTH, "rejected": [*STRENGTH["rejected"][:-1], " "]}, "empty_turn"),
    (Shape.CORRECTION, CORRECTED, {**CORRECTED, "corrected": None}, "no_correction"),
    (Shape.DEMONSTRATION, MARKED, {**MARKED, "annotations": []}, "not_annotated"),
    (Shape.DEMONSTRATION, SAFE, PKU, "better_not_safer"),
    (Shape.DEMONSTRATION, SAFE, {**SAFE, "is_response_0_safe": False}, "unsafe"),
    (Shape.DEMONSTRATION, LABELLED, {**LABELLED, "label": False}, "labelled_bad"),
    (Shape.UNPAIRED, STEPWISE, {**STEPWISE, "labels": [True, True, None]}, "undecided_steps"),
    (Shape.STEPS, PRM800K, {**PRM800K, "is_quality_control_question": True}, "quality_control"),
    (Shape.STEPS, PRM800K, {**PRM800K, "is_initial_screening_question": True}, "screening"),
    (Shape.STEPS, PRM800K, {**PRM800K, "label": {**PRM800K["label"], "finish_reason": "bad_problem"}}, "bad_problem"),
    (Shape.STEPS, PRM800K, {**PRM800K, "label": {**PRM800K["label"], "steps": []}}, "no_steps"),
]


def written(path, rows):
    return str(write_rows(path, rows))


@pytest.mark.parametrize(("shape", "good", "bad", "reason"), CASES)
def test_a_run_names_and_counts_the_reason(tmp_path, shape, good, bad, reason):
    source = written(tmp_path / "rows.jsonl", [good, bad, good, bad])
    loaded = load_examples(source, byte_level(), shape=shape, settings=Tokenise(), gate=Gate(missing_column="drop", duplicate="keep"))
    alone = select_examples(rows_of_shape(recognise(good), shape, good))
    there = [one for one in rows_of_shape(recognise(good), shape, bad) if one == LeftOut(reason)]
    both = [one for one in rows_of_shape(recognise(good), shape, good) if one == LeftOut(reason)]
    assert len(there) > 0 == len(select_examples(rows_of_shape(recognise(good), shape, bad)))
    assert {example.row for example in loaded.examples} == {0, 2}
    assert loaded.report["dropped"][reason] == 2 * len(there + both)
    assert len(alone) > 0
    (finding,) = [one for one in loaded.gate["findings"] if one["kind"] == reason]
    assert finding["action"] == "dropped"
    assert {1, 3} <= set(finding["rows"])
    assert any(line.startswith(f"{reason}: {2 * len(there + both)} dropped (rows ") for line in loaded.report["messages"])


def test_every_reason_has_a_case_and_stands_in_the_guide():
    assert {reason for _, _, _, reason in CASES} == {one.value for one in LeftOut}
    guide = GUIDE.read_text()
    assert [one.value for one in LeftOut if f"`{one.value}`" not in guide] == []


def test_check_data_names_the_reasons(tmp_path):
    control = {**PRM800K, "is_quality_control_question": True}
    empty = {**PRM800K, "label": {**PRM800K["label"], "steps": []}}
    report = check_rows(written(tmp_path / "prm.jsonl", [PRM800K, control, empty, control]), None, settings=Tokenise())
    found = {one["kind"]: (one["count"], one["rows"], one["action"]) for one in report["findings"]}
    assert found == {"quality_control": (2, [1, 3], "dropped"), "no_steps": (1, [2], "dropped"), "unread": (1, [0], "kept")}
    assert report["examples_left"] == 2
    assert "quality_control: 2 dropped (rows 1, 3)" in describe_report(report)


def test_a_converter_that_says_nothing_is_caught():
    silent = recognise(LABELLED)._replace(answers=lambda row: [])
    with pytest.raises(AssertionError, match="made no example and gave no reason"):
        rows_of_shape(silent, Shape.UNPAIRED, LABELLED)
