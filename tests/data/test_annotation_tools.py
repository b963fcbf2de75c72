"""Rows as annotation tools export them, to spans by annotator, with nothing lost silently.

Test of data/convert/annotated.py, data/convert/label_studio.py, data/convert/argilla.py.
"""

from typing import Any

import pytest

from finegrain.data.answer_text import join_answer
from finegrain.data.convert.annotated import label_value, strip_tags
from finegrain.data.formats import recognise
from finegrain.data.load import Tokenise, check_rows
from finegrain.data.records import Row, Shape
from finegrain.data.shapes import rows_of_shape
from finegrain.errors import DataError
from finegrain.types import CharSpan
from tests.tiny import write_rows

TEXT = "Paris 😀 is the capital of Spain."


def region(start: int, end: int, *labels: str, **more: Any) -> dict[str, Any]:
    return {"id": "x", "from_name": "label", "to_name": "text", "type": "labels", "value": {"start": start, "end": end, "labels": [*labels], **more}}


TASK = {
    "id": 1,
    "project": 3,
    "data": {"prompt": "Capital of France?", "text": TEXT, "score": 2},
    "annotations": [
        {"completed_by": 7, "result": [region(27, 32, "Error", text="Spain")], "was_cancelled": False},
        {"completed_by": {"id": 8, "email": "b@x.org"}, "result": [], "was_cancelled": False},
        {"completed_by": 9, "result": [region(0, 5, "Error")], "was_cancelled": True},
    ],
    "predictions": [{"model_version": "m", "result": [region(0, 5, "Good")]}],
}
MINIMAL = {
    "id": 1,
    "text": TEXT,
    "question": "Capital of France?",
    "label": [{"start": 0, "end": 5, "text": "Paris", "labels": ["Good", "Factuality"]}],
    "annotator": 7,
    "annotation_id": 4,
    "created_at": "2024-01-01",
    "updated_at": "2024-01-01",
    "lead_time": 3.5,
}
SPANS = [{"start": 26, "end": 31, "label": "Error", "score": None}]
ARGILLA_2 = {
    "id": "r1",
    "fields": {"prompt": "Capital of France?", "response": TEXT},
    "metadata": {},
    "suggestions": {"marks": {"value": SPANS, "agent": "m"}},
    "responses": {
        "marks": [{"value": SPANS, "user_id": "u1"}, {"value": [], "user_id": "u2"}],
        "quality": [{"value": "bad", "user_id": "u1"}],
    },
}
ARGILLA_1 = {
    **ARGILLA_2,
    "suggestions": [],
    "responses": [
        {"user_id": "u1", "status": "submitted", "values": {"marks": {"value": SPANS}}},
        {"user_id": "u2", "status": "draft", "values": {"marks": {"value": SPANS}}},
    ],
}
ARGILLA_0 = {"text": TEXT, "tokens": ["Paris"], "annotation": [["Error", 26, 31]], "annotation_agent": "u1", "prediction": [["Good", 0, 5, 0.9]]}
ARGILLA_TABLE = {
    "id": "r1",
    "status": "completed",
    "prompt": "Capital of France?",
    "response": TEXT,
    "marks.responses": [SPANS, []],
    "marks.responses.users": ["u1", "u2"],
    "marks.responses.status": ["submitted", "submitted"],
}
DOCCANO = {"id": 5, "prompt": "Capital of France?", "text": TEXT, "label": [[26, 31, "Error"]]}
ENTITIES = {"id": 5, "text": TEXT, "entities": [{"id": 1, "label": "Error", "start_offset": 26, "end_offset": 31}], "relations": [], "Comments": []}
TAGGED = {"source": "Hauptstadt?", "target": "Paris is in <v>Spain</v>.", "category": "Accuracy", "severity": "Major", "rater": "rater1"}
MQM = {
    "prompt": "Katze",
    "response": TEXT,
    "system": "GPT",
    "segment": "s/1",
    "spans_by_rater": {"r1": [{"start": 0, "end": 5, "value": -5}], "r2": []},
}

SPAIN = CharSpan(26, 31, -1.0, aspect="Error")
CASES = {
    "label studio": (TASK, "Label Studio", [SPAIN._replace(annotator="7")], ("7", "b@x.org")),
    "json-min": (
        MINIMAL,
        "Label Studio JSON-MIN",
        [CharSpan(0, 5, 1.0, aspect="Good", annotator="7"), CharSpan(0, 5, -1.0, aspect="Factuality", annotator="7")],
        ("7",),
    ),
    "json-min without a mark": ({name: value for name, value in MINIMAL.items() if name != "label"}, "Label Studio JSON-MIN", [], ("7",)),
    "argilla 2": (ARGILLA_2, "Argilla", [SPAIN._replace(annotator="u1")], ("u1", "u2")),
    "argilla 1": (ARGILLA_1, "Argilla", [SPAIN._replace(annotator="u1")], ("u1",)),
    "argilla 0": (ARGILLA_0, "Argilla", [SPAIN], ("u1",)),
    "argilla table": (ARGILLA_TABLE, "Argilla", [SPAIN._replace(annotator="u1")], ("u1", "u2")),
    "doccano": (DOCCANO, "doccano", [SPAIN], ()),
    "doccano labels": ({"text": TEXT, "labels": DOCCANO["label"]}, "doccano", [SPAIN], ()),
    "doccano relations": (ENTITIES, "doccano", [SPAIN], ()),
    "inline tags": (TAGGED, "inline tags", [CharSpan(12, 17, -5.0, aspect="Accuracy", annotator="rater1")], ("rater1",)),
    "mqm": (MQM, "MQM", [CharSpan(0, 5, -5.0, annotator="r1")], ("r1", "r2")),
}


def convert(row: dict[str, Any]) -> Row:
    (made,) = rows_of_shape(recognise(row), Shape.DEMONSTRATION, row)
    assert isinstance(made, Row)
    return made


@pytest.mark.parametrize("name", CASES)
def test_an_export_gives_the_answer_its_spans_and_its_annotators(name: str) -> None:
    row, form, spans, annotators = CASES[name]
    assert recognise(row).name == form
    answer = convert(row).answers["answer"]
    assert answer.spans == spans
    assert answer.annotators == annotators
    text = join_answer(answer.content)
    assert text == (TEXT if name != "inline tags" else "Paris is in Spain.")


def test_the_prompt_is_found_beside_the_answer() -> None:
    asked = lambda row: [turn.content for turn in convert(row).prompt]
    assert asked(TASK) == asked(MINIMAL) == asked(ARGILLA_2) == asked(ARGILLA_TABLE) == asked(DOCCANO) == ["Capital of France?"]
    assert convert(ARGILLA_0).prompt == ""
    assert [turn.role for turn in convert(MQM).prompt] == ["user"], "the system that translated is no system prompt"


def test_offsets_in_utf16_units_are_moved_where_the_words_are_given() -> None:
    assert [kind for kind, _ in convert(TASK).answers["answer"].notes] == ["span_moved"]


def test_regions_of_html_are_found_by_global_offsets_or_words() -> None:
    place = {"start": "/div[1]/text()[1]", "end": "/div[1]/text()[1]", "startOffset": 26, "endOffset": 31}
    html = {"value": {**place, "hypertextlabels": ["Error"], "globalOffsets": {"start": 26, "end": 31}}, "type": "hypertextlabels", "to_name": "text"}
    quoted = {"value": {**place, "hypertextlabels": ["Error"], "text": "Spain"}, "type": "hypertextlabels", "to_name": "text"}
    for one in (html, quoted):
        row = {**TASK, "annotations": [{"completed_by": 7, "result": [one]}]}
        assert convert(row).answers["answer"].spans == [SPAIN._replace(annotator="7")]


def test_what_is_not_read_is_named(tmp_path) -> None:
    other = {"value": {"choices": ["bad"]}, "type": "choices", "to_name": "text"}
    turn = {"value": {"start": "0", "end": "0", "paragraphlabels": ["Error"], "text": "x"}, "type": "paragraphlabels", "to_name": "dialogue"}
    tasks = [{**TASK, "annotations": [{"completed_by": 7, "result": [other, turn]}]}, TASK]
    (unread,) = (one for one in report(tmp_path, tasks)["findings"] if one["kind"] == "unread")
    assert unread["rows"] == [0, 1]
    assert "results of type choices, results of type paragraphlabels" in unread["example"]
    assert "predictions" in unread["example"]
    (unread,) = (one for one in report(tmp_path, [ARGILLA_2])["findings"] if one["kind"] == "unread")
    assert "answers to quality, suggestions" in unread["example"]


def report(tmp_path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return check_rows(str(write_rows(tmp_path / "rows.jsonl", rows)), None, settings=Tokenise())


def test_rows_nobody_finished_are_counted(tmp_path) -> None:
    drafts = {**ARGILLA_1, "responses": [{"user_id": "u", "status": "draft", "values": {}}]}
    assert {one["kind"]: one["count"] for one in report(tmp_path, [ARGILLA_1, drafts])["findings"]}["not_annotated"] == 1


@pytest.mark.parametrize(
    ("label", "value"), [("Good", 1.0), ("correct ", 1.0), ("hallucination", -1.0), ("-2.5", -2.5), ("Major", -5.0), ("minor", -1.0), ("+", 1.0)]
)
def test_values_of_labels(label: str, value: float) -> None:
    assert label_value(label) == value


def test_tags_may_nest_and_must_close() -> None:
    assert strip_tags("a <v>b <v>c</v></v><v>d</v>", "t") == ("a b cd", [(4, 5), (2, 5), (5, 6)])
    assert strip_tags("no tags", "t") == ("no tags", [])
    for broken in ("a <v>b", "a</v>", "<v>a</v></v>"):
        with pytest.raises(DataError, match="column 't'"):
            strip_tags(broken, "t")


def test_an_answer_without_tags_in_a_tagged_file_is_marked_by_nobody(tmp_path) -> None:
    clean = {**TAGGED, "target": "Paris is in France.", "category": "No-error", "severity": "no-error"}
    found = report(tmp_path, [TAGGED, clean])
    assert found["format"] == "inline tags"
    assert found["examples_left"] == 2


def test_one_annotated_row_decides_where_the_others_look_like_demonstrations(tmp_path) -> None:
    plain = [{"prompt": f"Capital of country {number}?", "response": f"Town {number}."} for number in range(3)]
    tagged = {"prompt": "Capital of France?", "response": "<v>Rome</v>, of course."}
    assert report(tmp_path, [*plain, tagged])["format"] == "inline tags"
    pending = [{**row, "id": str(number), "status": "pending", "marks.responses": None} for number, row in enumerate(plain)]
    finished = {**pending[0], "status": "completed", "marks.responses": [SPANS], "marks.responses.users": ["u1"]}
    found = report(tmp_path, [*pending, finished])
    assert (found["format"], found["examples_left"]) == ("Argilla", 1)
    assert {one["kind"]: one["count"] for one in found["findings"]}["not_annotated"] == 3


def test_a_task_without_an_answer_names_its_fields() -> None:
    with pytest.raises(DataError, match=r"expected one of response, answer.*found image"):
        rows_of_shape(recognise(TASK), Shape.DEMONSTRATION, {**TASK, "data": {"image": "x.png"}})
