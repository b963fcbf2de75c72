"""Tests data/annotations.py and what the gate says of spans: from the columns of a row to the spans of an example and their findings."""

from pathlib import Path
from typing import Any

import pytest

from finegrain.data.load import Gate, Tokenise, check_rows, load_examples
from finegrain.data.records import Shape
from finegrain.data.source_text import read_parses
from finegrain.errors import DataError
from finegrain.types import CharSpan
from tests.data.tiny import byte_level
from tests.tiny import write_rows

ROW = {"prompt": "Why? ", "completion": "ab 😀 cd &  ef"}


def load(tmp_path: Path, *rows: dict[str, Any], **gate: Any) -> Any:
    file = write_rows(tmp_path / "rows.jsonl", rows)
    return load_examples(str(file), byte_level(), shape=Shape.DEMONSTRATION, settings=Tokenise(), gate=Gate(**gate))


def found(data: Any) -> dict[str, tuple[int, str]]:
    other = ("boundary_differs", "duplicate")
    return {one["kind"]: (one.get("occurrences", one["count"]), one["action"]) for one in data.gate["findings"] if one["kind"] not in other}


def test_every_field_of_a_span_reaches_the_example(tmp_path: Path) -> None:
    whole = {"start": 0, "end": 2, "value": -1, "std": 0.5, "aspect": "tone", "annotator": "anna"}
    data = load(tmp_path, {**ROW, "spans": [whole, [3, 4, 1.0]], "annotator": "bert"}, ROW)
    assert data.examples[0].spans["answer"] == [CharSpan(0, 2, -1.0, 0.5, "tone", "anna"), CharSpan(3, 4, 1.0, annotator="bert")]
    assert data.examples[0].annotators == {"answer": ("bert", "anna")}
    assert data.examples[1].spans["answer"] is None
    assert data.examples[1].annotators == {}


@pytest.mark.parametrize("spans", [{}, {"spans": [[0, 2, -1.0]]}, {"spans_by_rater": {"a": []}}])
def test_a_parse_stands_beside_spans_of_every_kind(tmp_path: Path, spans: dict[str, Any]) -> None:
    one, other = load(tmp_path, {**ROW, **spans, "answer_parse": "(S (NN ab))"}, {**ROW, **spans, "answer_parse": None}).examples
    assert (read_parses(one), read_parses(other)) == ({"answer": "(S (NN ab))"}, {})
    assert (one.spans["answer"] is None) == (not spans)


def test_a_parse_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'answer_parse': expected a bracketed parse as text, found 3"):
        load(tmp_path, {**ROW, "answer_parse": 3})


def test_raters_of_an_empty_list_took_part_and_null_did_not(tmp_path: Path) -> None:
    raters = {"a": [[0, 2, -5.0]], "b": [], "c": None}
    (example,) = load(tmp_path, {**ROW, "spans_by_rater": raters}).examples
    assert example.annotators == {"answer": ("a", "b")}
    assert example.spans["answer"] == [CharSpan(0, 2, -5.0, annotator="a")]


def test_pairs_have_raters_by_side_and_joined_exports_name_everybody(tmp_path: Path) -> None:
    pair = {"prompt": "Why? ", "chosen": "yes", "rejected": "no", "rejected_spans_by_rater": {"a": [], "b": [[0, 2, -1.0]]}}
    joined = {"chosen_spans": [{"start": 0, "end": 1, "value": 1, "annotator": "x"}], "mark": {"answers": {"chosen": {"annotators": ["x", "y"]}}}}
    file = write_rows(tmp_path / "pairs.jsonl", [{**pair, **joined}])
    (example,) = load_examples(str(file), byte_level(), shape=Shape.PREFERENCE, settings=Tokenise()).examples
    assert example.annotators == {"chosen": ("x", "y"), "rejected": ("a", "b")}


def test_quotes_are_placed_and_what_moved_is_counted_span_by_span(tmp_path: Path) -> None:
    spans = [
        {"start": 0, "end": 2, "value": 1, "quote": "ab"},
        {"start": 6, "end": 8, "value": 2, "quote": "cd"},
        {"start": 0, "end": 3, "value": 3, "text": "&amp; ef"},
        {"value": 4, "quote": "zzz"},
        {"value": 5, "quote": " "},
    ]
    data = load(tmp_path, ROW, {**ROW, "spans": spans})
    assert data.examples[1].spans["answer"] == [CharSpan(0, 2, 1.0), CharSpan(5, 7, 2.0), CharSpan(8, 13, 3.0), CharSpan(2, 3, 5.0)]
    assert found(data) == {"span_moved": (2, "kept"), "span_not_found": (1, "not counted"), "span_ambiguous": (1, "kept")}
    (moved,) = (one for one in data.gate["findings"] if one["kind"] == "span_moved")
    assert moved["rows"] == [1]
    assert "6..8 is 5..7, its offsets count UTF-16 units" in moved["example"]
    with pytest.raises(DataError, match=r"row 1: span_not_found \(.*'zzz' is not in the answer\)"):
        load(tmp_path, ROW, {**ROW, "spans": spans}, span_not_found="error")


def test_quotes_count_the_words_of_a_conversation_without_its_reasoning(tmp_path: Path) -> None:
    said = [{"role": "assistant", "content": "good answer", "reasoning_content": "well"}]
    row = {"prompt": [{"role": "user", "content": "q"}], "completion": said, "spans": [{"value": -1, "quote": "answer"}]}
    (example,) = load(tmp_path, row).examples
    ((start, end, *_),) = example.spans["answer"]
    assert example.responses["answer"].text[start:end] == "answer"


def test_spans_that_cover_nothing_overlap_or_lie_outside_are_found(tmp_path: Path) -> None:
    spans = [[0, 2, -1.0], [1, 3, 1.0], [4, 4, 1.0], [5, 3, 1.0], [10, 99, 1.0]]
    data = load(tmp_path, {**ROW, "spans": spans}, {**ROW, "spans_by_rater": {"a": [[0, 2, -1.0]], "b": [[1, 3, -1.0]]}})
    wanted = {"empty_span": (2, "not counted"), "overlapping_spans": (1, "kept"), "span_outside_text": (1, "clipped")}
    assert {kind: told for kind, told in found(data).items() if kind != "agreement"} == wanted
    assert data.examples[0].spans["answer"] == [CharSpan(0, 2, -1.0), CharSpan(1, 3, 1.0), CharSpan(10, 13, 1.0)]
    assert load(tmp_path, ROW, {**ROW, "spans": spans}, empty_span="drop").report["dropped"] == {"empty_span": 1}


@pytest.mark.parametrize(
    "cell",
    [
        {"spans": [{"start": 0, "end": 1}]},
        {"spans": [{"start": 0, "end": 1, "value": 1, "std": -1}]},
        {"spans": [{"start": 0, "end": 1, "value": 1, "aspect": ["a"]}]},
        {"spans": [{"value": 1}]},
        {"spans": [[0.5, 1, 1]]},
        {"spans": {"start": 0}},
        {"spans_by_rater": [[0, 1, 1]]},
        {"spans_by_rater": {"a": [[0, 1]]}},
    ],
)
def test_a_cell_of_another_form_is_an_error_with_its_row(cell: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:2.*spans"):
        load(tmp_path, ROW, {**ROW, **cell})


def test_a_deviation_that_is_no_number_drops_its_row(tmp_path: Path) -> None:
    report = check_rows(
        str(write_rows(tmp_path / "r.jsonl", [ROW, {**ROW, "spans": [{"start": 0, "end": 1, "value": 1, "std": 1e400}]}])), None, settings=Tokenise()
    )
    assert [one["kind"] for one in report["findings"]] == ["not_a_number"]


def test_agreement_is_measured_over_characters_and_by_aspect(tmp_path: Path) -> None:
    """Two annotators of eight characters; by hand, nominal: 6 of 8 units agree (4 x bad, 2 x none), two do not."""
    text = {"prompt": "Why? ", "completion": "abcdefgh"}
    span = lambda start, end, aspect: {"start": start, "end": end, "value": -1, "aspect": aspect}
    row = {**text, "spans_by_rater": {"a": [span(0, 4, "x")], "b": [span(0, 6, "x")]}}
    agreement = load(tmp_path, row).gate["agreement"]
    counts, total = {"bad": 10, "none": 6}, 16
    expected = 1 - (total - 1) * (2 * 2) / (total**2 - sum(count**2 for count in counts.values()))
    assert agreement["alpha"] == {"nominal": pytest.approx(expected, abs=1e-4), "interval": pytest.approx(expected, abs=1e-4)}
    assert agreement["by_aspect"]["x"]["alpha"] == pytest.approx(expected, abs=1e-4)
    assert agreement["answers_by_annotators"] == {"2": 1}


def test_an_aspect_that_other_answers_do_not_have_counts_them_as_unmarked(tmp_path: Path) -> None:
    mark = {"start": 0, "end": 4, "value": -1, "aspect": "x"}
    rows = [
        {"prompt": "Why? ", "completion": "abcdefgh", "spans_by_rater": {"a": [mark], "b": [mark]}},
        {"prompt": "Who? ", "completion": "abcdefgh", "spans_by_rater": {"a": [], "b": []}},
    ]
    facts = load(tmp_path, *rows).gate["agreement"]["by_aspect"]["x"]
    assert facts == {"alpha": 1.0, "marked_share": 0.25}


def test_one_annotator_each_is_said_in_words(tmp_path: Path) -> None:
    rows = [{**ROW, "spans": [[0, 2, -1.0]], "annotator": name} for name in ("a", "b")]
    data = load(tmp_path, *rows)
    assert data.gate["agreement"]["alpha"] is None
    assert "2 annotators, one for each answer, so their agreement cannot be measured" in " ".join(data.report["messages"])
    assert "agreement" not in load(tmp_path, ROW).gate
    unnamed = load(tmp_path, {**ROW, "spans": []})
    assert "agreement" not in found(unnamed)
    assert "do not name annotators" in unnamed.gate["agreement"]["reason"]
