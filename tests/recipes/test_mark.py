"""`finegrain mark --data`: what stands on the page, how answers are put together, what is suggested, what is refused."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from finegrain.data.answer_text import answer_text, shift_spans
from finegrain.data.load import load_text
from finegrain.data.records import Turn
from finegrain.recipes.marking.content import marked_text, unshift_spans
from finegrain.recipes.marking.tasks import find_changed, make_tasks
from finegrain.types import CharSpan
from tests.recipes.command import Command
from tests.report.test_page import HOSTILE, Elements, data_of
from tests.tiny import write_rows

Row = dict[str, Any]
PAIR: Row = {"prompt": "Where? ", "chosen": "In the house.", "rejected": "In the sky."}
ANSWER: Row = {"prompt": "Where? ", "completion": "In the house."}


def page_of(command: Command, folder: Path, rows: list[Row], *arguments: str | Path) -> dict[str, Any]:
    """The data inside the page of these rows."""
    out = folder / "mark.html"
    out.unlink(missing_ok=True)
    done = command("mark", "--data", write_rows(folder / "rows.jsonl", rows), "--out", out, *arguments)
    assert done.code == 0, done.error
    return data_of(out.read_text())


def test_a_page_is_made_and_the_gate_is_heard(command: Command, tmp_path: Path) -> None:
    rows = [PAIR, {**PAIR, "prompt": "When? "}, {**PAIR, "chosen": " "}, {**PAIR, "prompt": "Who? ", "note": "kept"}]
    done = command("mark", "--data", write_rows(tmp_path / "rows.jsonl", rows), "--out", tmp_path / "mark.html")
    assert done.code == 0, done.error
    assert {name: done.result[name] for name in ("format", "rows", "tasks", "answers", "suggestions", "changed")} == {
        "format": "preference pairs", "rows": 4, "tasks": 3, "answers": 6, "suggestions": 0, "changed": 0,
    }  # fmt: skip
    assert {finding["kind"]: finding["rows"] for finding in done.result["findings"]} == {"empty": [2], "unread": [3]}
    assert "empty: 1 dropped (rows 2)" in done.error
    assert command("mark", "--data", tmp_path / "rows.jsonl", "--out", tmp_path / "mark.html").code == 7, "a page is not replaced"


def test_the_page_is_whole_and_escaped(command: Command, tmp_path: Path) -> None:
    hostile = HOSTILE.replace("\x00", "")
    data = page_of(command, tmp_path, [{"prompt": hostile, "chosen": hostile, "rejected": "no"}], "--aspects", hostile, "--annotator", hostile)
    page = (tmp_path / "mark.html").read_text()
    elements = Elements(page)
    assert len(elements.of("script")) == 2
    assert not elements.of("img")
    assert not [attributes for _, attributes in elements.found if {"src", "onerror", "onclick", "style"} & attributes.keys()]
    assert data["tasks"][0]["prompt"] == hostile, "spans count the text as it is"
    assert (data["annotator"], data["aspects"]) == (hostile, [hostile.strip()])
    policy = next(attributes["content"] for attributes in elements.of("meta") if attributes.get("http-equiv"))
    assert policy is not None
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-[\w+/=]+'; script-src 'sha256-[\w+/=]+'; base-uri 'none'; form-action 'none'", policy)
    assert "http" not in re.sub(r"http-equiv", "", page.replace(json.dumps(data), ""))


def test_the_order_of_answers_tells_nothing(command: Command, tmp_path: Path) -> None:
    """It does not depend on which answer the data prefer."""
    rows = [{"prompt": f"{n}? ", "chosen": f"It is {n}.", "rejected": f"Nobody knows {n}."} for n in range(40)]
    texts = lambda data: [[answer["text"] for answer in task["answers"]] for task in data["tasks"]]
    one = page_of(command, tmp_path, rows)
    other = page_of(command, tmp_path, [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows])
    assert texts(one) == texts(other)
    chosen_first = sum(task["pairs"][0]["chosen"] == 0 for task in one["tasks"])
    assert 8 < chosen_first < 32
    assert one["digest"] != other["digest"], "names of answers have other texts"


def test_answers_to_one_prompt_stand_together(command: Command, tmp_path: Path) -> None:
    rows = [{**PAIR, "rejected": f"In the {word}."} for word in ("sky", "sea", "air", "fire", "ice")]
    data = page_of(command, tmp_path, rows)
    assert [len(task["answers"]) for task in data["tasks"]] == [4, 3]
    assert [len(task["pairs"]) for task in data["tasks"]] == [3, 2]
    assert [len(task["answers"]) for task in page_of(command, tmp_path, rows, "--together", "6")["tasks"]] == [6]
    data = page_of(command, tmp_path, [{**ANSWER, "completion": row["rejected"], "label": 0} for row in rows])
    assert [len(task["answers"]) for task in data["tasks"]] == [4, 1]
    assert data["form"] == "answers"
    assert data["tasks"][1]["answers"][0]["columns"] == {"label": 0.0}
    assert len(page_of(command, tmp_path, [{"text": "One text."}, {"text": "Another one."}])["tasks"]) == 2


def test_samples_of_a_prompt(command: Command, tmp_path: Path) -> None:
    """Rows {prompt, responses} have no preference; each answer is exported by itself."""
    data = page_of(command, tmp_path, [{"prompt": "Where? ", "responses": ["Here.", "There."]}, {"prompt": "Who? ", "responses": ["They."]}])
    assert [[answer["id"] for answer in task["answers"]] for task in data["tasks"]] in (
        [["0/sample-0", "0/sample-1"], ["1/sample-0"]],
        [["0/sample-1", "0/sample-0"], ["1/sample-0"]],
    )
    assert data["form"] == "answers"
    assert not any("pairs" in task for task in data["tasks"])
    done = command("mark", "--data", write_rows(tmp_path / "none.jsonl", [{"prompt": "Who? ", "responses": []}]), "--out", tmp_path / "none.html")
    assert (done.code, "none of 1 rows has an answer" in done.error) == (3, True)


def test_ranked_answers_and_corrections_keep_their_order_as_pairs(command: Command, tmp_path: Path) -> None:
    corrected = {"prompt": "2+2? ", "original": "5", "corrected": "4", "original_spans": [{"start": 0, "end": 1, "value": -1}]}
    data = page_of(command, tmp_path, [corrected])
    (task,) = data["tasks"]
    (pair,) = task["pairs"]
    better, worse = (task["answers"][pair[role]] for role in ("chosen", "rejected"))
    assert (data["form"], better["text"], worse["text"]) == ("pairs", "4", "5")
    assert worse["suggestions"] == [{"start": 0, "end": 1, "value": -1.0}]
    (task,) = page_of(command, tmp_path, [{"prompt": "Which? ", "answers": ["bad", "best", "fair"], "ranks": [3, 1, 2]}])["tasks"]
    orders = {(task["answers"][pair["chosen"]]["text"], task["answers"][pair["rejected"]]["text"]) for pair in task["pairs"]}
    assert orders == {("best", "bad"), ("best", "fair"), ("fair", "bad")}


def test_the_digest_is_of_the_texts_alone(command: Command, tmp_path: Path) -> None:
    """Work that a browser keeps is found again on a page with other settings and suggestions, not on one with other texts."""
    digest = page_of(command, tmp_path, [PAIR])["digest"]
    assert page_of(command, tmp_path, [{**PAIR, "chosen_spans": [[0, 2, 1.0]]}], "--aspects", "fact")["digest"] == digest
    assert page_of(command, tmp_path, [{**PAIR, "prompt": "Where?"}])["digest"] != digest
    assert page_of(command, tmp_path, [{**PAIR, "chosen": "In the home."}])["digest"] != digest


def test_spans_of_the_data_are_suggested_with_what_they_say(command: Command, tmp_path: Path) -> None:
    spans = [
        {"start": 0, "end": 2, "value": -5, "aspect": "fact", "annotator": "eve"},
        {"start": 7, "end": 99, "value": 1, "aspect": "place"},
        [3, 6, 0.0],
    ]
    data = page_of(command, tmp_path, [{**PAIR, "chosen_spans": spans}, {**PAIR, "prompt": "When? "}])
    found = {answer["id"]: answer.get("suggestions", []) for task in data["tasks"] for answer in task["answers"]}
    assert found["0/chosen"] == [
        {"start": 0, "end": 2, "value": -5.0, "aspect": "fact", "annotator": "eve"},
        {"start": 7, "end": len(PAIR["chosen"]), "value": 1.0, "aspect": "place"},
    ]
    assert [spans for name, spans in found.items() if name != "0/chosen"] == [[], [], []]
    assert data["aspects"] == ["fact", "place"]


def score_line(name: str, response: str, segments: list[list[float]], tokens: list[list[float]] | None = None) -> Row:
    return {
        "id": name,
        "prompt": "p",
        "response": response,
        "score": {"mean": 0, "std": None},
        "tokens": tokens or [],
        "segments": segments,
        "truncated": False,
    }


def test_the_extreme_segments_of_a_scored_file_are_suggested(command: Command, tmp_path: Path) -> None:
    lines = [
        score_line("0/chosen", PAIR["chosen"], [[0, 2, 0.5], [2, 6, 0.9], [6, 13, -0.1]]),
        score_line("9/rejected", PAIR["rejected"], [], [[0, 2, -2.0, 0.1], [2, 6, -1.0, 0.1], [6, 11, 3.0, 0.1], [11, 11, 0.0, 0.1]]),
        score_line("9/chosen", "Nobody wrote this.", [[0, 6, -9.0]]),
    ]
    scores = write_rows(tmp_path / "scores.jsonl", lines)
    data = page_of(command, tmp_path, [PAIR], "--suggest", scores, "--suggest-bad", "0.34", "--suggest-good", "0.2")
    found = {answer["id"]: answer.get("suggestions", []) for task in data["tasks"] for answer in task["answers"]}
    assert found["0/rejected"] == [{"start": 0, "end": 6, "value": -1.0, "score": -1.33}, {"start": 6, "end": 11, "value": 1.0, "score": 3.0}]
    assert found["0/chosen"] == []
    (tmp_path / "mark.html").unlink()
    done = command("mark", "--data", tmp_path / "rows.jsonl", "--out", tmp_path / "mark.html", "--suggest", scores)
    assert (done.result["scored"], done.result["scored_elsewhere"]) == (3, 1)
    assert "scored answers that are not on the page, or have another text there: 1 (9/chosen)" in done.error


def test_a_text_that_stands_on_the_page_twice_is_found_by_its_name_alone(command: Command, tmp_path: Path) -> None:
    scores = write_rows(tmp_path / "scores.jsonl", [score_line(name, PAIR["chosen"], [[0, 2, -1.0]]) for name in ("1/chosen", "9/chosen")])
    rows = [PAIR, {**PAIR, "prompt": "When? "}]
    data = page_of(command, tmp_path, rows, "--suggest", scores, "--suggest-bad", "1")
    assert [answer["id"] for task in data["tasks"] for answer in task["answers"] if "suggestions" in answer] == ["1/chosen"]


def test_what_finegrain_score_writes_is_suggested(command: Command, tmp_path: Path) -> None:
    scores, out = tmp_path / "scores.jsonl", tmp_path / "mark.html"
    function = tmp_path / "mine.py"
    function.write_text("def rate(prompts, completions, **columns):\n    return [[(0, 2, -1.0), (3, 5, 1.0)] for _ in completions]\n")
    assert command("score", "--reward", f"{function}:rate", "--data", command.data, "--out", scores).code == 0
    done = command("mark", "--data", command.data, "--out", out, "--suggest", scores, "--suggest-bad", "0.5")
    assert done.code == 0, done.error
    assert done.result["suggestions"] == done.result["answers"]
    assert done.result["scored_elsewhere"] == 0


def test_suggestions_that_fit_nothing(command: Command, tmp_path: Path) -> None:
    rows, out = write_rows(tmp_path / "rows.jsonl", [PAIR]), tmp_path / "mark.html"
    asked = lambda line: command("mark", "--data", rows, "--out", out, "--suggest", write_rows(tmp_path / "scores.jsonl", [line]))
    done = asked(score_line("5/chosen", "Another text.", [[0, 3, 1.0]]))
    assert (done.code, out.exists()) == (2, False)
    assert "none of its 1 lines scores a passage of an answer" in done.error
    assert "it lacks id, response, segments, tokens" in asked({"a": 1}).error
    assert "expected segments [start, end, mean], found ['x', 2, 3]" in asked(score_line("0/chosen", PAIR["chosen"], [["x", 2, 3]])).error  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected --data D for a page, or --merge"),
        (["--merge", "a", "--aspects", "x", "--annotator", "y"], "--aspects and --annotator: settings of the page"),
        (["--merge", "a", "--together", "2"], "--together: settings of the page"),
        (["--merge", "a", "--limit", "2"], "--limit and --gate are about the rows of --data"),
        (["--data", "d", "--suggest-bad", "0.3"], "choose from the segments of --suggest, which was not given"),
        (["--data", "d", "--suggest", "s", "--suggest-bad", "0.7", "--suggest-good", "0.4"], "add up to more than all segments"),
        (["--data", "d", "--aspects", " "], "--aspects: expected names"),
        (["--data", "d", "--together", "0"], "together must be a whole number of at least 1"),
    ],
)
def test_settings_that_contradict_each_other(arguments: list[str], words: str, command: Command, tmp_path: Path) -> None:
    done = command("mark", "--out", tmp_path / "out", *arguments)
    assert done.code == 2
    assert words in done.error


def test_spans_over_contents_and_over_the_whole_text() -> None:
    """`unshift_spans` takes back what the reader of the data did, and cuts what lies in reasoning and calls."""
    more = json.dumps({"reasoning_content": "because"})
    turns = (Turn("assistant", "one two", more), Turn("tool", "42"), Turn("assistant", "three four", more))
    bare, whole = marked_text(turns), answer_text(turns)[0]
    for word in ("one", "two", "three", "four"):
        start = bare.index(word)
        (shifted,) = shift_spans([CharSpan(start, start + len(word), 1.0)], turns) or ()
        assert whole[shifted[0] : shifted[1]] == word
        assert unshift_spans([shifted], turns) == [CharSpan(start, start + len(word), 1.0)]
    place = whole.index("because")
    assert unshift_spans([CharSpan(place, place + 7, 1.0)], turns) == []
    assert unshift_spans([CharSpan(place, whole.index("two"), 1.0)], turns) == [CharSpan(0, 4, 1.0)]


SAY = lambda role, text: {"role": role, "content": text}
FORMS: dict[str, Row] = {
    "pairs": PAIR,
    "conversations": {"prompt": [SAY("user", "Where?")], "chosen": [SAY("assistant", "Here.")], "rejected": [SAY("assistant", "There.")]},
    "implicit prompt": {
        "chosen": [SAY("user", "Where?"), SAY("assistant", "Here.")],
        "rejected": [SAY("user", "Where?"), SAY("assistant", "There.")],
    },
    "transcripts": {"chosen": "\n\nHuman: Where?\n\nAssistant: Here.", "rejected": "\n\nHuman: Where?\n\nAssistant: There."},
    "several turns": {
        "chosen": [SAY("user", "Where?"), SAY("assistant", "Here."), SAY("user", "Sure?"), SAY("assistant", "Yes.")],
        "rejected": [SAY("user", "Where?"), SAY("assistant", "There."), SAY("user", "Sure?"), SAY("assistant", "No.")],
    },
    "system": {"system": "Be brief.", **PAIR},
    "tools": {"tools": [{"name": "look"}], "messages": [SAY("user", "Where?"), SAY("assistant", "Here.")]},
    "demonstrations": ANSWER,
    "labelled": {**ANSWER, "label": True},
    "instruction": {"instruction": "Say where.", "input": "the cat", "output": "Here."},
    "gsm8k": {"question": "2+2?", "answer": "#### 4"},
    "text": {"text": "All of it."},
    "rated": {"prompt": "Where?", "response": "Here.", "ratings": {"clear": 3}},
    "steps": {"prompt": "2+3*4?", "completions": ["3*4=12", "2+12=14"], "labels": [True, False]},
    "Nectar": {
        "prompt": "\n\nHuman: Where?\n\nAssistant: ",
        "answers": [{"answer": text, "rank": rank} for rank, text in enumerate(("Here.", "There.", "Nowhere."), 1)],
        "turns": 1,
        "num_responses": 3,
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_back_as_it_went(form: str, tmp_path: Path) -> None:
    """An exported row is read as the same prompt, answers and text that spans count."""
    tasks = make_tasks(load_text(str(write_rows(tmp_path / "rows.jsonl", [FORMS[form]]))).rows, 4)
    assert find_changed(tasks) == []
    tasks[0].answers[0].content = [SAY("user", "who?"), SAY("assistant", "they")]
    assert tasks[0].answers[0].id in find_changed(tasks), "the check sees a difference"


def test_what_the_format_puts_before_an_answer_is_part_of_its_exported_text(tmp_path: Path) -> None:
    rows = load_text(str(write_rows(tmp_path / "rows.jsonl", [FORMS["gsm8k"]]))).rows
    (task,) = make_tasks(rows, 4)
    assert (task.prompt, task.answers[0].text, task.answers[0].before) == ("Question: 2+2?\nAnswer:", " #### 4", 1)


def test_compressed_and_several_sources(command: Command, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as stream:
        stream.write(json.dumps({**PAIR, "chosen_spans": [{"start": 0, "end": 2, "value": 1, "aspect": "place"}]}) + "\n")
    other = write_rows(
        tmp_path / "b.jsonl", [{**PAIR, "prompt": "When? ", "rejected_spans": [{"start": 0, "end": 2, "value": -1, "aspect": "time"}]}]
    )
    done = command("mark", "--data", f"{tmp_path / 'a.jsonl.gz'} + {other}", "--out", tmp_path / "mark.html")
    assert done.code == 0, done.error
    found = data_of((tmp_path / "mark.html").read_text())
    assert {answer["id"] for task in found["tasks"] for answer in task["answers"]} == {"0/chosen", "0/rejected", "1/chosen", "1/rejected"}
    assert found["aspects"] == ["place", "time"]
