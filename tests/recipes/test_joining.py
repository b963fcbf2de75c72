"""`finegrain mark --merge`: several people's exports as one file of data, and every difference between them named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import finegrain
from finegrain.data.load import load_text
from finegrain.recipes.marking.joining import DIRECTED
from tests.recipes.command import Command, Outcome
from tests.recipes.marked import exported
from tests.tiny import write_rows

Row = dict[str, Any]
PAIR: Row = {"prompt": "Where? ", "chosen": "In the house.", "rejected": "In the sky.", "tie": 0}
OTHER: Row = {"prompt": "When? ", "chosen": "At noon.", "rejected": "Never ever.", "tie": 0}
IN: Row = {"start": 0, "end": 2, "value": -1}
SKY: Row = {"start": 7, "end": 10, "value": -1, "aspect": "fact"}


def swapped(row: Row) -> Row:
    """The pair with its answers exchanged."""
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


@pytest.fixture
def merge(command: Command, tmp_path: Path) -> Any:
    """Joins exports given as rows; returns the outcome and the joined rows."""

    def run(*exports: list[Row], data: list[Row] | None = None) -> tuple[Outcome, list[Row]]:
        files = [write_rows(tmp_path / f"{name}.jsonl", rows) for name, rows in zip("abcd", exports, strict=False)]
        out = tmp_path / "spans.jsonl"
        out.unlink(missing_ok=True)
        checked = [] if data is None else ["--data", write_rows(tmp_path / "data.jsonl", data)]
        done = command("mark", "--merge", *files, "--out", out, *checked)
        return done, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    return run


def kinds(done: Outcome) -> dict[str, int]:
    return {finding["kind"]: finding["count"] for finding in done.result["findings"]}


def test_spans_of_several_people_keep_their_names(merge: Any, tmp_path: Path) -> None:
    done, rows = merge([exported(PAIR, "ann", rejected=[SKY]), exported(OTHER, "ann", 1)], [exported(PAIR, "bob", chosen=[IN], rejected=[SKY])])
    assert (done.code, kinds(done)) == (0, {}), done.error
    assert rows[0]["rejected_spans"] == [{**SKY, "annotator": "ann"}, {**SKY, "annotator": "bob"}]
    assert rows[0]["chosen_spans"] == [{**IN, "annotator": "bob"}]
    assert rows[0]["mark"]["answers"]["chosen"]["annotators"] == ["ann", "bob"], "who found nothing to mark is named too"
    assert rows[1]["chosen_spans"] == []
    assert done.result["annotators"] == {"ann": 4, "bob": 2}
    spans = load_text(str(tmp_path / "spans.jsonl")).rows[0][1].answers["rejected"].spans
    assert [(span[:3], span.annotator) for span in spans or ()] == [((7, 10, -1.0), "ann"), ((7, 10, -1.0), "bob")]


def test_a_joined_file_is_joined_again(merge: Any) -> None:
    first = [exported(PAIR, "ann", chosen=[IN])], [exported(PAIR, "bob", by="person", rejected=[SKY])]
    _, rows = merge(*first)
    done, again = merge(rows, [exported(PAIR, "cleo", rejected=[SKY])])
    assert kinds(done) == {}
    assert [span["annotator"] for span in again[0]["rejected_spans"]] == ["bob", "cleo"]
    assert again[0]["mark"]["votes"] == {"bob": 1}
    assert done.result["annotators"] == {"ann": 2, "bob": 2, "cleo": 2}


def test_an_answer_that_nobody_annotated(merge: Any) -> None:
    done, rows = merge([exported(PAIR, "ann", chosen=[IN], rejected=None, done=False)])
    assert rows[0]["rejected_spans"] is None
    assert kinds(done) == {"unfinished": 1}


def test_votes(merge: Any) -> None:
    """The majority decides the direction; its share is label_prob; the data's preference counts where nobody voted."""
    own = {**PAIR, "margin": 2.0, "chosen_score": 7.0}
    exports = [[exported(own, name, by="person", rejected=[SKY])] for name in ("ann", "bob")]
    exports.append([exported(swapped(PAIR), "cleo", by="person", ids={"chosen": "0/rejected", "rejected": "0/chosen"})])
    _, rows = merge(exports[0] + [exported(OTHER, "ann", 1)], *exports[1:])
    assert [(row["chosen"], row["tie"], row["label_prob"]) for row in rows] == [("In the house.", 0, pytest.approx(2 / 3)), ("At noon.", 0, 1.0)]
    assert rows[0]["mark"]["votes"] == {"ann": 1, "bob": 1, "cleo": -1}
    assert rows[0]["margin"] == 2.0
    _, rows = merge(exports[0], exports[2])
    assert (rows[0]["tie"], rows[0]["label_prob"]) == (1, 0.5)
    _, rows = merge(exports[2], exports[0], exports[1])
    assert (rows[0]["chosen"], rows[0]["margin"]) == ("In the house.", 2.0), "the row of a person who agrees gives the numbers"
    assert rows[0]["rejected_spans"][0]["annotator"] == "ann"


def test_a_majority_against_the_only_direction_turns_the_pair(merge: Any) -> None:
    flags = {"is_chosen_safe": 1, "is_rejected_safe": 0, "helpful": 1, "harmless": 0}
    joined = exported({**PAIR, "margin": 2.0, "chosen_score": 7.0, "weight": 0.5, **flags}, "ann", rejected=[SKY])
    joined["mark"]["votes"] = {"ann": -1, "bob": -1, "cleo": 1}
    _, rows = merge([joined])
    assert (rows[0]["chosen"], rows[0]["rejected"], rows[0]["label_prob"]) == ("In the sky.", "In the house.", pytest.approx(2 / 3))
    assert (rows[0]["rejected_score"], rows[0]["weight"], "margin" in rows[0]) == (7.0, 0.5, False)
    assert (rows[0]["is_chosen_safe"], rows[0]["is_rejected_safe"]) == (0, 1)
    assert not {"helpful", "harmless"} & rows[0].keys(), "by which of both a pair is ordered holds in one direction"
    assert rows[0]["chosen_spans"] == [{**SKY, "annotator": "ann"}]
    assert rows[0]["mark"]["answers"]["chosen"]["id"] == "0/rejected"
    assert rows[0]["mark"]["votes"] == {"ann": 1, "bob": 1, "cleo": -1}


def test_one_persons_later_export_counts(merge: Any) -> None:
    later = "2026-02-01T00:00:00.000Z"
    done, rows = merge([exported(PAIR, "ann", by="person", chosen=[IN], saved=later)], [exported(PAIR, "ann", by="person", rejected=[SKY])])
    assert kinds(done) == {"superseded": 2}
    assert (len(rows[0]["chosen_spans"]), rows[0]["rejected_spans"]) == (1, [])
    assert "a.jsonl:1 counts" in done.result["findings"][0]["places"][0]
    done, _ = merge([exported(PAIR, "ann", chosen=[IN])], [exported(PAIR, "ann", chosen=[IN])])
    assert kinds(done) == {"duplicate": 2}
    turned = exported(swapped(PAIR), "ann", by="person", saved=later, ids={"chosen": "0/rejected", "rejected": "0/chosen"})
    done, rows = merge([exported(PAIR, "ann", by="person")], [turned])
    assert (kinds(done)["vote_changed"], rows[0]["chosen"]) == (1, "In the sky.")


def test_texts_that_differ_are_named_and_both_kept(merge: Any) -> None:
    new = {**PAIR, "rejected": "In the deep sky."}
    done, rows = merge([exported(PAIR, "ann", rejected=[SKY])], [exported(new, "bob", rejected=[SKY])])
    assert kinds(done) == {"text_differs": 1}
    assert [(row["rejected"], [span["annotator"] for span in row["rejected_spans"]]) for row in rows] == [
        ("In the sky.", ["ann"]),
        ("In the deep sky.", ["bob"]),
    ]
    assert len(rows[0]["mark"]["answers"]["chosen"]["annotators"]) == 2, "the other answer is the same"


def test_a_text_changed_after_the_export(merge: Any) -> None:
    row = exported(PAIR, "ann", rejected=[{**SKY, "end": 40}])
    done, rows = merge([{**row, "rejected": "In the air."}])
    assert kinds(done) == {"text_altered": 1, "span_outside_text": 1}
    assert len(rows) == 1


def test_marks_of_an_older_data_file(merge: Any) -> None:
    """Nothing is lost: moved answers get their new names, others keep the text that was marked."""
    exports = [exported(PAIR, "ann", rejected=[SKY]), exported(OTHER, "ann", 1), exported({**OTHER, "prompt": "Why? ", "chosen": "So."}, "ann", 7)]
    plain = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in (PAIR, OTHER)]
    done, rows = merge(exports, data=[plain[1], {**plain[0], "rejected": "In the new sky."}])
    assert kinds(done) == {"moved": 3, "text_differs_from_data": 1, "not_in_data": 2}
    assert rows[0]["mark"]["answers"] == {
        "chosen": {"id": "1/chosen", "sha256": rows[0]["mark"]["answers"]["chosen"]["sha256"], "annotators": ["ann"]},
        "rejected": {"id": "0/rejected", "sha256": rows[0]["mark"]["answers"]["rejected"]["sha256"], "annotators": ["ann"]},
    }
    assert rows[0]["rejected_spans"] == [{**SKY, "annotator": "ann"}]
    assert len(rows) == 3
    done, rows = merge(exports[:1], data=[{**plain[0], "prompt": "Where now? "}, {**plain[1], "chosen": PAIR["chosen"]}])
    assert kinds(done) == {"prompt_differs_from_data": 2}, "the same words after another prompt are another answer"
    done, _ = merge(exports[:1], [exported({**PAIR, "prompt": "Where now? "}, "bob")])
    assert kinds(done) == {"prompt_differs": 2}
    done, _ = merge(exports[:2], data=plain)
    assert kinds(done) == {}


def test_exports_without_names_and_of_other_pages(merge: Any, tmp_path: Path) -> None:
    other = exported(PAIR, "", rejected=[SKY])
    other["mark"]["data"] = "e"
    done, rows = merge([exported(PAIR, "", chosen=[IN])], [other])
    assert kinds(done) == {"unnamed_annotator": 2, "other_page": 1}
    assert [span["annotator"] for side in ("chosen", "rejected") for span in rows[0][f"{side}_spans"]] == [
        str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")
    ]


def test_single_answers(merge: Any, tmp_path: Path) -> None:
    row = {"prompt": "Where? ", "completion": "In the sky.", "label": 1}
    done, rows = merge([exported(row, "ann", completion=[SKY])], [exported(row, "bob")])
    assert (kinds(done), len(rows)) == ({}, 1)
    assert rows[0]["spans"] == [{**SKY, "annotator": "ann"}]
    assert rows[0]["mark"]["answers"]["answer"]["annotators"] == ["ann", "bob"]
    assert load_text(str(tmp_path / "spans.jsonl")).gate["format"] == "unpaired answers"


def test_single_answers_keep_how_people_compared_them(merge: Any) -> None:
    one = exported({"prompt": "Where? ", "completion": "In the sky."}, "ann", by="person")
    one["mark"]["preference"] |= {"order": ["0/answer"], "equal": False}
    done, rows = merge([one], [exported({"prompt": "Where? ", "completion": "In the sky."}, "bob")])
    assert rows[0]["mark"]["preferences"] == {"ann": {"order": ["0/answer"], "equal": False}}
    done, again = merge(rows)
    assert again[0]["mark"]["preferences"] == rows[0]["mark"]["preferences"]
    assert kinds(done) == {}


def test_notes_are_kept_by_name(merge: Any) -> None:
    row = exported(PAIR, "ann", chosen=[IN])
    row["mark"]["answers"]["chosen"]["notes"] = [{"start": 0, "end": 2, "note": "where?"}]
    _, rows = merge([row])
    assert rows[0]["mark"]["answers"]["chosen"]["notes"] == [{"start": 0, "end": 2, "note": "where?", "annotator": "ann"}]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "KeyError: 'mark'"),
        ({**exported(PAIR, "ann"), "mark": 3}, "expected a row exported by finegrain mark"),
        ({**exported(PAIR, "ann"), "chosen_spans": [{"start": "0", "end": 2, "value": 1}]}, "a span {'start': '0'"),
        ({**exported(PAIR, "ann"), "chosen_spans": [{"start": 0, "end": 2, "value": float("nan")}]}, "a span {'start': 0"),
        ({**exported(PAIR, "ann"), "mark": {**exported(PAIR, "ann")["mark"], "version": 2}}, "version 2 of the record 'mark'"),
        ({**exported(PAIR, "ann"), "chosen": 3}, "expected a list of messages"),
    ],
)
def test_rows_that_are_no_export(row: Row, words: str, merge: Any) -> None:
    done, _ = merge([exported(PAIR, "ann"), row])
    assert done.code == 3
    assert "a.jsonl:2: " in done.error
    assert words in done.error


def test_pairs_and_single_answers_are_not_mixed(merge: Any) -> None:
    done, _ = merge([exported(PAIR, "ann")], [exported({"prompt": "p", "completion": "c"}, "ann")])
    assert done.code == 2
    assert "different forms" in done.error


def test_page_and_joining_agree_on_what_says_a_direction() -> None:
    script = (Path(finegrain.__file__).parent / "report" / "templates" / "mark_store.js").read_text()
    listed = re.search(r"const DIRECTED = new Set\(\[(.*?)\]\)", script)
    assert listed is not None
    assert set(re.findall(r'"(\w+)"', listed[1])) == DIRECTED
