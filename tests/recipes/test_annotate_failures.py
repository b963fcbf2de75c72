"""`finegrain annotate` with a server that answers badly, slowly, with errors, or not at all; Ctrl-C and going on.

Test of recipes/annotate.py, recipes/annotation/asking.py, recipes/annotation/replies.py.
"""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finegrain.generate import endpoint as endpoints
from finegrain.recipes.annotation.asking import STOP_AFTER
from finegrain.recipes.annotation.edits import EditTask
from finegrain.recipes.annotation.replies import UnusableReply, parse_reply
from finegrain.recipes.annotation.rubric import RubricTask
from finegrain.recipes.annotation.spans import SpanTask
from tests.recipes.annotating import ANSWER, PAIR, Annotating, Json, numbered, span
from tests.recipes.stand_in import Sent, completion, failed, serve

EMPTY: Json = {"spans": []}
KEY = "sk-secret-0123456789"
ESCAPES = "\x1b]0;owned\x07\u202eevil\x9b31m"


def findings(result: Json) -> dict[str, tuple[list[int], str]]:
    """Rows and action by kind."""
    return {finding["kind"]: (finding["rows"], finding["action"]) for finding in result["findings"]}


def test_prose_is_asked_for_again_with_the_reason(annotating: Annotating) -> None:
    annotating.server.answer = lambda request, number: completion(EMPTY) if len(request["messages"]) > 1 else completion("Sure! Here are the spans:")
    done = annotating([ANSWER], "spans")
    assert done.code == 0, done.error
    assert annotating.lines()[0]["spans"] == []
    assert done.result["failed_tries"] == {"not_json": 1}
    assert findings(done.result) == {}
    first, second = annotating.server.requests
    assert second["messages"][: len(first["messages"])] == first["messages"]
    reply, reason = second["messages"][1:]
    assert reply == {"role": "assistant", "content": "Sure! Here are the spans:"}
    assert "it is not JSON alone" in reason["content"]


def test_what_is_never_answered_is_counted_and_not_annotated(annotating: Annotating) -> None:
    """The other rows are written, and the next call asks again for what failed, and for nothing else."""
    bad = lambda request: "It is 1 " in request["messages"][0]["content"]
    annotating.server.answer = lambda request, number: completion("No.") if bad(request) else completion({"spans": [span("of all")]})
    done = annotating(numbered(3), "spans", "--retries", "1")
    assert done.code == 0, done.error
    assert [line["spans"] if line["spans"] is None else len(line["spans"]) for line in annotating.lines()] == [1, None, 1]
    assert findings(done.result) == {"not_json": ([1], "not annotated")}
    assert "not_json: 1 not annotated" in done.error
    assert (done.result["requests"], done.result["failed_tries"]) == (4, {"not_json": 2})
    assert json.loads(annotating.summary.read_text())["findings"][0]["kind"] == "not_json"
    annotating.server.answer = lambda request, number: completion(EMPTY)
    done = annotating(numbered(3), "spans")
    assert (done.result["known"], done.result["requests"], findings(done.result)) == (2, 1, {})


@pytest.mark.parametrize(("task", "left"), [("edits", [{"corrected": None}]), ("preference", []), ("rubric", [])])
def test_what_other_tasks_do_without_an_answer(annotating: Annotating, task: str, left: list[Json]) -> None:
    """The second prompt fails: its correction is null, its comparison and ratings are left out; of one order alone nothing follows."""
    good = {"edits": [], "ratings": {"correctness": 1, "relevance": 1, "clarity": 1}, "better": "A"}
    only_one_order = lambda prompt: "Again?" in prompt and prompt.find("sky") > prompt.find("house")
    annotating.server.answer = lambda request, number: completion("no" if only_one_order(request["messages"][0]["content"]) else good)
    rows = [PAIR, {**PAIR, "prompt": "Again? ", "rejected": "sky"}] if task == "preference" else [ANSWER, {"prompt": "Again? ", "completion": "sky"}]
    done = annotating(rows, task, "--retries", "0")
    assert done.code == 0, done.error
    (_, *others) = annotating.lines()
    assert [{"corrected": line["corrected"]} for line in others] == left
    assert findings(done.result)["not_json"][0] == [1]


def test_quotes_that_are_not_there(annotating: Annotating) -> None:
    """Tried again; then what is there counts, what is not is named, and nothing but such quotes is no annotation."""
    annotating.server.answer = lambda request, number: completion({"spans": [span("of all"), span("of none")]})
    done = annotating(numbered(1), "spans")
    assert [one["start"] for one in annotating.lines()[0]["spans"]] == [8]
    assert done.result["failed_tries"] == {"span_not_found": 3}
    assert findings(done.result) == {"span_not_found": ([0], "ignored")}
    assert "'of none' is not in the answer" in annotating.server.requests[1]["messages"][2]["content"]
    annotating.server.answer = lambda request, number: completion(
        {"spans": [span("of none")] if "0?" not in request["messages"][0]["content"] else []}
    )
    done = annotating(numbered(2), "spans", "--model", "other")
    assert [line["spans"] for line in annotating.lines()] == [[], None]
    assert findings(done.result) == {"span_not_found": ([1], "not annotated")}


def test_the_best_of_several_replies_counts(annotating: Annotating) -> None:
    replies = [[span("It"), span("x"), span("y")], [span("It"), span("is"), span("x")], [span("It"), span("x"), span("y"), span("z")]]
    annotating.server.answer = lambda request, number: completion({"spans": replies[number]})
    assert annotating(numbered(1), "spans").code == 0
    assert [one["start"] for one in annotating.lines()[0]["spans"]] == [0, 3]


EDITS = {
    "edit_not_found": [("nowhere", "x")],
    "edit_ambiguous": [("the", "a")],
    "edits_overlap": [("the house", "a"), ("house by", "b")],
    "rewritten": [("In the house by the", "Down at")],
    "empty_correction": [("In the house by the sea.", " ")],
    "wrong_form": [("In", None)],
}


@pytest.mark.parametrize("kind", EDITS)
def test_edits_that_cannot_be_made(kind: str) -> None:
    edits = [{"quote": quote, "replacement": replacement} for quote, replacement in EDITS[kind]]
    with pytest.raises(UnusableReply) as caught:
        EditTask(0.5).read(ANSWER["completion"], {"edits": edits})
    assert caught.value.kind == kind


BAD_REPLIES = {
    "prose": ("Sure.", "not_json"),
    "prose around": ('Here: {"spans": []}', "not_json"),
    "empty": ("", "not_json"),
    "list": ("[]", "wrong_form"),
    "NaN": ('{"spans": NaN}', "not_json"),
    "deep": ("[" * 100_000, "not_json"),
    "long number": ('{"spans": ' + "9" * 10_000 + "}", "not_json"),
    "surrogate": ("\ud800", "invalid_text"),
}


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_replies_that_are_no_object(name: str) -> None:
    text, kind = BAD_REPLIES[name]
    with pytest.raises(UnusableReply) as caught:
        parse_reply(text)
    assert caught.value.kind == kind


AFTER_THOUGHTS = (
    '<think>{"a": 2}\n</think>\n{"a": 1}',
    'A thought.\n</think>\n\n{"a": 1}',
    '<think>I close with </think> later.</think>```json\n{"a": 1}\n```',
)


@pytest.mark.parametrize("text", ['{"a": 1}', ' \n{"a": 1}\n', '```json\n{"a": 1}\n```', '```\n{"a": 1}```\n', *AFTER_THOUGHTS])
def test_replies_in_usual_wrappings(text: str) -> None:
    assert parse_reply(text) == {"a": 1}
    marked = '{"a": "</think>{"}'
    assert parse_reply(marked) == parse_reply(f"<think>b</think>{marked}") == {"a": "</think>{"}


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"spans": None},
        {"spans": [[]]},
        {"spans": [{}]},
        {"spans": [{**span("In"), "quote": 3}]},
        {"spans": [{**span("In"), "quote": "x" * 5000}]},
        {"spans": [{**span("In"), "judgement": "awful"}]},
        {"spans": [{**span("In"), "aspect": None}]},
        {"spans": [{**span("In"), "quote": "\ud800"}]},
        {"spans": [span("In")] * 201},
        {"spans": [span("In", aspect="\x1b[2J")]},
        {"spans": [span("In", aspect="x" * 41)]},
        {"spans": [span("")]},
    ],
)
def test_spans_in_another_form(reply: Json) -> None:
    with pytest.raises(UnusableReply):
        SpanTask().read("In the house.", reply)


def test_an_empty_quote_is_named() -> None:
    found = SpanTask().read("In the house.", {"spans": [span("In"), span(" ")]})
    assert ([one.start for one in found.value.spans], found.notes) == ([0], (("span_not_found", "a quote is empty"),))


def test_aspects_that_were_not_asked_for() -> None:
    found = SpanTask(("truth",)).read("In the house.", {"spans": [span("In", aspect="truth"), span("the", aspect="tone")]})
    assert [one.aspect for one in found.value.spans] == ["truth"]
    assert [kind for kind, _ in found.notes] == ["unknown_aspect"]


@pytest.mark.parametrize("rating", [0, 6, 2.5, True, "3", None, [3], 10**400])
def test_ratings_out_of_range(rating: Any) -> None:
    with pytest.raises(UnusableReply):
        RubricTask(("truth",), 5).read({"ratings": {"truth": rating}})


def test_errors_that_pass(annotating: Annotating, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with the time that the server asks for, 500, an answer that breaks off: each question succeeds in the end, and each kind is counted."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", slept)
    sent = [failed(429, retry_after="17"), failed(500), failed(503), Sent(drop=True), Sent(b"<html>"), Sent(b'{"choices": []}')]
    annotating.server.answer = lambda request, number: sent[number] if number < len(sent) else completion(EMPTY)
    done = annotating([ANSWER], "spans", "--retries", "6", "--model", "m")
    assert done.code == 0, done.error
    assert done.result["failed_tries"] == {"server_error": 2, "no_completion": 2, "rate_limit": 1, "no_connection": 1}
    assert annotating.lines()[0]["spans"] == []
    assert waits[:2] == [0.0, 17.0]


def test_waits_grow(annotating: Annotating, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", slept)
    monkeypatch.setattr("finegrain.recipes.annotation.asking.FIRST_WAIT", 1.0)
    annotating.server.answer = lambda request, number: failed(429, retry_after="1e9") if number == 9 else failed(500)
    assert annotating([ANSWER], "spans", "--retries", "9", "--model", "m").code == 8
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize("kind", ["cut_off", "refused", "rejected_request"])
def test_what_another_try_would_not_change(annotating: Annotating, kind: str) -> None:
    bad = {
        "cut_off": completion('{"spans": [', "length"),
        "refused": completion("", refusal="I will not."),
        "rejected_request": failed(400, "too long"),
    }
    annotating.server.answer = lambda request, number: bad[kind] if "1?" in request["messages"][0]["content"] else completion(EMPTY)
    done = annotating(numbered(2), "spans")
    assert done.code == 0, done.error
    assert (done.result["requests"], findings(done.result)) == (2, {kind: ([1], "not annotated")})


def test_a_slow_server(annotating: Annotating) -> None:
    """What takes too long is tried again."""
    annotating.server.answer = lambda request, number: Sent(wait=20.0) if number == 0 else completion(EMPTY)
    done = annotating([ANSWER], "spans", "--timeout", "3")
    assert done.code == 0, done.error
    assert done.result["failed_tries"] == {"timeout": 1}


def test_no_server(annotating: Annotating) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        by = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        for model in ((), ("--model", "m")):
            done = annotating(numbered(30), "spans", "--by", by, *model)
            assert done.code == 8
            assert by in done.error
            assert not annotating.out.exists()
    assert "there is no server" in done.error
    assert not re.search(r"question \d", done.error), "the first question is the last one"


def test_a_server_that_drops_the_first_question_is_there(annotating: Annotating) -> None:
    annotating.server.answer = lambda request, number: Sent(drop=True) if number == 0 else completion(EMPTY)
    done = annotating(numbered(3), "spans", "--retries", "0", "--parallel", "1")
    assert done.code == 0, done.error
    assert findings(done.result) == {"no_connection": ([0], "not annotated")}


def test_failures_in_a_row_stop(annotating: Annotating) -> None:
    """Not those that are scattered; what was answered before is kept."""
    answered = 4
    annotating.server.answer = lambda request, number: completion(EMPTY) if number < answered else completion("No.")
    done = annotating(numbered(100), "spans", "--retries", "0", "--parallel", "1")
    assert done.code == 8
    assert len(annotating.server.requests) == answered + STOP_AFTER
    assert f"{STOP_AFTER} questions in a row failed, the last one as not_json" in done.error
    assert "4 of 100 replies are kept" in done.error
    assert not annotating.out.exists()
    annotating.server.answer = lambda request, number: completion("No." if number % 3 else EMPTY)
    assert annotating(numbered(100), "spans", "--retries", "0").code == 0


def test_a_server_without_one_usable_reply(annotating: Annotating) -> None:
    annotating.server.answer = lambda request, number: failed(422, "response_format is not known")
    done = annotating(numbered(3), "spans")
    assert (done.code, annotating.out.exists()) == (8, False)
    assert "none of 3 questions got a usable reply: rejected_request (422:" in done.error
    assert "response_format is not known" in done.error


@pytest.mark.parametrize("status", sorted(endpoints.STOPS))
def test_what_concerns_all_requests_stops_at_once(annotating: Annotating, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that repeats the key does not make it visible."""
    monkeypatch.setenv("JUDGE_KEY", "sk-secret-123")
    annotating.server.answer = lambda request, number: failed(status, f"bad key sk-secret-123 {ESCAPES}")
    done = annotating(numbered(40), "spans", "--key-env", "JUDGE_KEY", "--parallel", "2")
    assert done.code == 8
    assert len(annotating.server.requests) <= 2
    assert "(key)" in done.error
    assert not {"sk-secret-123", "\x1b", "\u202e", "\x9b"} & {part for part in ("sk-secret-123", *ESCAPES) if part in done.error}


def test_models_to_choose_from(annotating: Annotating) -> None:
    for models, words in (({"data": [{"id": "a\x1b"}, {"id": "b"}]}, "lists 2 models (a⟦U+001B⟧, b)"), ({"data": 3}, "lists no model")):
        annotating.server.models = models
        done = annotating([ANSWER], "spans")
        assert (done.code, words in done.error, annotating.server.requests) == (2, True, [])
    annotating.server.models = {"data": [{"id": "m\ud800"}, {"id": "judge-2"}]}
    annotating.server.answer = lambda request, number: completion(EMPTY)
    assert annotating([ANSWER], "spans").result["model"] == "judge-2", "a name that is no text cannot be sent back"
    annotating.server.models = []
    assert annotating([ANSWER], "spans").code == 8


def test_hostile_words_reach_files_and_terminal_as_text(annotating: Annotating) -> None:
    hostile = {**span("house"), "reason": f"{ESCAPES}<script>\nline"}
    annotating.server.answer = lambda request, number: completion({"spans": [hostile, span(f"{ESCAPES} gone")]})
    done = annotating([ANSWER], "spans")
    assert done.code == 0, done.error
    assert "evil" in done.error
    assert not any(sign in done.error for sign in "\x1b\u202e\x9b\x07")
    (line,) = annotating.lines()
    assert line["annotation"]["reasons"]["answer"] == [f"{ESCAPES}<script> line"]
    assert "\x1b" not in annotating.out.read_text()
    assert len(annotating.out.read_text().splitlines()) == 1


def test_a_body_without_end(annotating: Annotating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "MOST_BYTES", 10_000)
    for status in (200, 500):
        annotating.server.answer = lambda request, number, status=status: Sent(b" " * 20_000, status)
        done = annotating([ANSWER], "spans")
        assert done.code == 8
        assert "too_long (the body has more than 10000 bytes)" in done.error
    annotating.server.answer = lambda request, number: Sent(b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert "compressed" in annotating([ANSWER], "spans").error


def test_redirects_are_not_followed(annotating: Annotating) -> None:
    with serve() as other:
        annotating.server.answer = lambda request, number: Sent(b"", 307, {"location": f"{other.url}/chat/completions"})
        done = annotating(numbered(3), "spans")
        assert (done.code, other.paths) == (8, [])
    assert "sends requests on to another address" in done.error


@pytest.fixture
def listens_to_interrupts() -> Iterator[None]:
    """As at a terminal: a shell starts what runs in its background with Ctrl-C ignored, and Python leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listens_to_interrupts")
def test_stopped_and_gone_on(annotating: Annotating) -> None:
    """Ctrl-C while the fifth question waits: the same command asks the rest alone and writes what an unstopped one writes."""

    def answer(request: Json, number: int) -> Sent:
        if number == 4:
            os.kill(os.getpid(), signal.SIGINT)
            return Sent(wait=1.0)
        return completion({"spans": [span("of all")]})

    annotating.server.answer = answer
    done = annotating(numbered(12), "spans", "--parallel", "1")
    assert done.code == 130
    assert "stopped; 4 of 12 replies are kept, and the same command goes on from there" in done.error
    assert not annotating.out.exists()
    annotating.server.answer = lambda request, number: completion({"spans": [span("of all")]})
    done = annotating(numbered(12), "spans")
    assert (done.code, done.result["known"], done.result["requests"]) == (0, 4, 8)
    stopped = annotating.out.read_text()
    os.environ["FINEGRAIN_CACHE"] += "-other"
    assert annotating(numbered(12), "spans").result["known"] == 0
    assert annotating.out.read_text() == stopped


def test_the_key_is_sent_and_nowhere_written(annotating: Annotating, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    good, repeated = json.dumps({"spans": [span("house")]}), json.dumps({"spans": [{**span("house"), "reason": KEY}]})
    replies = [repeated, repeated.replace("sec", "\\u0073ec"), f"<think>{KEY}</think>{good}"]
    annotating.server.models = {"data": [{"id": KEY}, {"id": "judge-1"}]}
    annotating.server.answer = lambda request, number: failed(500) if number == 0 else completion(replies[number - 1])
    done = annotating([ANSWER], "spans", "--key-env", "JUDGE_KEY", "--retries", "3")
    assert done.code == 0, done.error
    assert {headers["authorization"] for headers in annotating.server.headers} == {f"Bearer {KEY}"}
    assert done.result["failed_tries"] == {"repeats_key": 2, "server_error": 1}
    assert annotating.lines()[0]["annotation"]["reasons"]["answer"] == ["because"]
    files = [file for file in annotating.folder.rglob("*") if file.is_file()]
    assert len([file for file in files if cache in file.parents]) == 1
    assert not [file for file in files if KEY.encode() in file.read_bytes()]
    assert "secret" not in done.error + json.dumps(done.result)


def test_a_key_that_is_a_word_changes_no_text(annotating: Annotating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "judge")
    annotating.server.answer = lambda request, number: completion({"spans": [{**span("house"), "reason": "a judgement"}]})
    done = annotating([ANSWER], "spans", "--key-env", "JUDGE_KEY")
    assert done.code == 0, done.error
    assert annotating.server.requests[0]["model"] == "judge-1"
    assert annotating.lines()[0]["annotation"]["reasons"]["answer"] == ["a judgement"]


@pytest.mark.parametrize("status", [401, 422, 500])
@pytest.mark.parametrize("words", [" " * 1990 + KEY, json.dumps({"error": KEY}).replace("sec", "\\u0073ec"), f"<p>{KEY}</p>"])
def test_the_key_is_in_no_message(annotating: Annotating, monkeypatch: pytest.MonkeyPatch, status: int, words: str) -> None:
    """Where it would be cut off, and however it is escaped."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    annotating.server.answer = lambda request, number: Sent(words.encode(), status)
    done = annotating([ANSWER], "spans", "--key-env", "JUDGE_KEY", "--retries", "0")
    assert done.code == 8
    assert "(key)" in done.error
    assert not any(part in done.error for part in ("sk-", "ecret"))


def test_a_missing_key(annotating: Annotating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    done = annotating([ANSWER], "spans", "--key-env", "NO_SUCH_KEY")
    assert (done.code, annotating.server.paths) == (2, [])
    assert "--key-env NO_SUCH_KEY: this environment variable is not set or empty" in done.error


def test_a_missing_package_names_the_extra(annotating: Annotating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    done = annotating([ANSWER], "spans")
    assert done.code == 2
    assert "'.[annotate]'" in done.error
    assert annotating([ANSWER], "spans", "--dry-run").code == 0, "what sends nothing needs no client"


def test_names_that_are_no_text(annotating: Annotating) -> None:
    for option in ("--model", "--annotator"):
        done = annotating([ANSWER], "spans", option, "m\udc80")
        assert (done.code, annotating.server.paths) == (2, [])
        assert f"{option}: the name is not valid UTF-8" in done.error


def test_another_host_is_asked_for(annotating: Annotating, monkeypatch: pytest.MonkeyPatch) -> None:
    """And told, with the proxy that is not used."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    done = annotating([ANSWER], "spans", "--by", "http://judge.example/v1")
    assert (done.code, "--host judge.example" in done.error) == (2, True)
    done = annotating([ANSWER], "spans", "--by", "http://judge.example/v1", "--host", "judge.example", "--dry-run")
    assert done.code == 0, done.error
    assert "prompts and answers would be sent to judge.example, unencrypted" in done.error
    assert "HTTPS_PROXY is set and not used" in done.error


def test_nothing_to_ask_and_nothing_to_write(annotating: Annotating) -> None:
    done = annotating([{"prompt": "Who? ", "responses": ["I."]}], "preference")
    assert (done.code, annotating.server.paths) == (3, [])
    assert "--task preference can be asked of none of 1 rows (no_two_answers 1)" in done.error
    annotating.server.answer = lambda request, number: completion({"better": "A"} if number else "no")
    done = annotating([PAIR], "preference", "--retries", "0", "--parallel", "1")
    assert (done.code, annotating.out.exists()) == (8, False)
    assert "no row got all replies that it needs; not_json: 1 left out" in done.error
