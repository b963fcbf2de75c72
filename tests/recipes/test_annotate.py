"""`finegrain annotate` with a server that answers well: what is asked, what is written, and who reads it."""

import json
from pathlib import Path

import pytest

from finegrain.data.load import load_text
from finegrain.data.records import Answer, Row
from finegrain.recipes.annotation.edits import CorrectedAnswer, EditTask
from finegrain.recipes.annotation.preference import OrderedVerdict, PreferenceTask
from finegrain.recipes.annotation.rows import Annotator
from finegrain.recipes.annotation.rubric import RubricTask
from finegrain.recipes.annotation.spans import FoundSpans, SpanTask
from finegrain.types import CharSpan
from tests.recipes.annotating import ANSWER, PAIR, Annotating, Json, numbered, span
from tests.recipes.stand_in import completion
from tests.tiny import write_rows

BY = Annotator("judge", {"version": 1})


def test_spans_of_pairs(annotating: Annotating) -> None:
    said = {"house": [span("the house", "good"), span("by the sea", aspect="style")], "sky": []}
    annotating.server.answer = lambda request, number: completion(
        {"spans": next(spans for word, spans in said.items() if f"In the {word}" in request["messages"][0]["content"])}
    )
    done = annotating([{**PAIR, "weight": 0.5}], "spans")
    assert done.code == 0, done.error
    (line,) = annotating.lines()
    who = {"annotator": "judge-1"}
    assert line["chosen_spans"] == [
        {"start": 3, "end": 12, "value": 1.0, "aspect": "factuality", **who},
        {"start": 13, "end": 23, "value": -1.0, "aspect": "style", **who},
    ]
    assert line["rejected_spans"] == [], "looked at, nothing found"
    assert {name: line[name] for name in ("prompt", "chosen", "rejected", "weight", "annotator")} == {**PAIR, "weight": 0.5, **who}
    assert line["annotation"]["reasons"]["chosen"] == ["because", "because"]
    assert {name: done.result[name] for name in ("written", "questions", "annotated", "good", "bad", "requests", "prompt_tokens")} == {
        "written": 1, "questions": 2, "annotated": 2, "good": 1, "bad": 1, "requests": 2, "prompt_tokens": 200,
    }  # fmt: skip
    assert annotating.checked() == {"shape": "preference", "unread": [0], "agreement": []}
    (read,) = load_text(str(annotating.out)).rows
    assert read[1].answers["rejected"].annotators == ("judge-1",)


def test_what_is_sent(annotating: Annotating) -> None:
    annotating.server.answer = lambda request, number: completion({"spans": []})
    done = annotating([ANSWER], "spans", "--aspects", "truth", "tone", "--temperature", "0.5", "--max-tokens", "99", "--annotator", "ann")
    assert done.code == 0, done.error
    (request,) = annotating.server.requests
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("judge-1", 0.5, 99)
    form = request["response_format"]["json_schema"]
    assert form["strict"] is True
    assert form["schema"]["properties"]["spans"]["items"]["properties"]["aspect"] == {"type": "string", "enum": ["truth", "tone"]}
    (prompt,) = annotating.server.prompts
    assert all(text in prompt for text in (ANSWER["prompt"].strip(), ANSWER["completion"], "one of truth, tone"))
    assert annotating.lines()[0]["annotator"] == "ann"
    assert annotating.server.paths == ["/v1/models", "/v1/chat/completions"]
    for form_name, expected in (("json-object", {"type": "json_object"}), ("text", None)):
        assert annotating([ANSWER], "spans", "--reply-form", form_name, "--model", "named").code == 0
        assert annotating.server.requests[-1].get("response_format") == expected
    assert annotating.server.requests[-1]["model"] == "named"


def test_marks_of_people_stay_beside_those_of_the_model(annotating: Annotating) -> None:
    """An annotator who found nothing stays one; the same annotator's older spans are replaced."""
    annotating.server.answer = lambda request, number: completion({"spans": [span("house")]})
    spans = {"ann": [{"start": 3, "end": 6, "value": 1.0, "std": 0.5}], "bob": [], "judge-1": [[0, 2, 1.0]]}
    assert annotating([{**ANSWER, "spans_by_rater": spans}, {**ANSWER, "prompt": "Who? ", "spans": [[0, 2, 1]]}], "spans").code == 0
    lines = annotating.lines()
    (first,), (second,) = ([*load_text(str(write_rows(annotating.folder / f"{n}.jsonl", [line]))).rows] for n, line in enumerate(lines))
    assert "spans" not in lines[0]
    assert first[1].answers["answer"].annotators == ("ann", "bob", "judge-1")
    assert first[1].answers["answer"].spans == [CharSpan(3, 6, 1.0, 0.5, "", "ann"), CharSpan(7, 12, -1.0, None, "factuality", "judge-1")]
    assert second[1].answers["answer"].spans == [CharSpan(0, 2, 1.0), CharSpan(7, 12, -1.0, None, "factuality", "judge-1")]


def test_spans_count_what_annotators_see(annotating: Annotating) -> None:
    """Contents of turns without reasoning; what a format puts before a string answer shifts them."""
    annotating.server.answer = lambda request, number: completion({"spans": [span("é house")]})
    turn = {"role": "assistant", "content": "😀 Thé house.", "reasoning_content": "A house, then."}
    assert annotating([{"prompt": [{"role": "user", "content": "Where?"}], "completion": [turn]}], "spans").code == 0
    assert "A house, then." not in annotating.server.prompts[0]
    ((_, row),) = load_text(str(annotating.out)).rows
    (found,) = row.answers["answer"].spans or ()
    assert isinstance(row.answers["answer"].content, tuple)
    assert "A house, then." in row.answers["answer"].content[0].more
    assert annotating.lines()[0]["spans"][0]["start"] == 4
    assert found.start > 4, "the whole text has the reasoning before it"
    glued = Row(prompt="Q: where? Answer:", answers={"answer": Answer(content="here it is", spans=[CharSpan(0, 4, 1.0)])}, glue=" ")
    (line,) = SpanTask().write(glued, [FoundSpans((CharSpan(5, 7, -1.0, aspect="x"),), ("r",))], BY)
    assert line["completion"] == " here it is"
    assert [(one["start"], one["end"]) for spans in line["spans_by_rater"].values() for one in spans] == [(1, 5), (6, 8)]


def test_edits_become_corrections(annotating: Annotating) -> None:
    edits = [{"quote": "by the sea", "replacement": "by the lake", "reason": "r"}, {"quote": "In", "replacement": "Right in", "reason": "r"}]
    annotating.server.answer = lambda request, number: completion({"edits": edits if "house" in request["messages"][0]["content"] else []})
    rows = [{**ANSWER, "weight": 2}, {"prompt": "Who? ", "completion": "They."}]
    done = annotating(rows, "edits")
    assert done.code == 0, done.error
    first, second = annotating.lines()
    assert (first["original"], first["corrected"], first["weight"]) == (ANSWER["completion"], "Right in the house by the lake.", 2.0)
    assert (second["original"], second["corrected"]) == ("They.", "They.")
    assert {name: done.result[name] for name in ("corrected", "unchanged")} == {"corrected": 1, "unchanged": 1}
    assert annotating.checked() == {"shape": "correction", "identical": [1], "unread": [0, 1]}
    talk = [{"prompt": [{"role": "user", "content": "Where?"}], "completion": [{"role": "assistant", "content": "In the house by the sea."}]}]
    calls = {"role": "assistant", "content": "In the house.", "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}
    done = annotating([*talk, {"prompt": talk[0]["prompt"], "completion": [calls]}], "edits")
    assert done.code == 0, done.error
    assert [line["corrected"] for line in annotating.lines()] == ["Right in the house by the lake."]
    assert [(finding["kind"], finding["rows"]) for finding in done.result["findings"]] == [("not_one_plain_turn", [1])]
    assert annotating.checked()["shape"] == "correction"


def test_of_a_pair_the_rejected_answer_is_corrected() -> None:
    row = Row(
        prompt="Q", answers={"chosen": Answer(content="good"), "rejected": Answer(content="bad", spans=[])}, columns={"weight": 0.5, "margin": 2}
    )
    (inquiry,) = EditTask().inquire(row)
    assert inquiry.texts["answer"] == "bad"
    (line,) = EditTask().write(row, [CorrectedAnswer("fair", ())], BY)
    assert line == {
        "prompt": "Q", "original": "bad", "corrected": "fair", "original_spans_by_rater": {"": []}, "weight": 0.5,
        "annotator": "judge", "annotation": {"version": 1, "reasons": []},
    }  # fmt: skip


def test_preferences_are_asked_in_both_orders(annotating: Annotating) -> None:
    """Row 0 keeps its direction, row 1 is turned, of row 2 the server always prefers the first answer, row 3 is a win and a tie."""

    def verdict(request: Json, number: int) -> str:
        prompt = request["messages"][0]["content"]
        sky_first = prompt.index("In the sky") < prompt.index("In the house")
        if "Always?" in prompt:
            return "A"
        if "Half?" in prompt:
            return "A" if sky_first else "tie"
        return "A" if sky_first == ("Turn?" in prompt) else "B"

    annotating.server.answer = lambda request, number: completion({"reason": "r", "better": verdict(request, number)})
    numbers = {"margin": 3, "chosen_rank": 1, "rejected_rank": 2, "weight": 0.5, "chosen_spans": [[0, 2, 1.0]]}
    done = annotating([{**PAIR, **numbers, "prompt": prompt} for prompt in ("Keep? ", "Turn? ", "Always? ", "Half? ")], "preference")
    assert done.code == 0, done.error
    keep, turn, always, half = annotating.lines()
    assert (keep["chosen"], turn["chosen"], turn["rejected"]) == (PAIR["chosen"], PAIR["rejected"], PAIR["chosen"])
    facts = lambda line: tuple(line[name] for name in ("tie", "label_prob", "orders_agree", "agrees_with_data"))
    assert [facts(line) for line in (keep, turn, always, half)] == [(0, 1.0, 1, 1.0), (0, 1.0, 1, 0.0), (1, 0.5, 0, 0.5), (0, 0.75, 0, 0.25)]
    assert (keep["chosen_rank"], turn["chosen_rank"], turn["rejected_rank"], turn["weight"]) == (1.0, 2.0, 1.0, 0.5)
    assert "margin" not in keep
    assert ("chosen_spans_by_rater" in keep, "rejected_spans_by_rater" in turn, "chosen_spans_by_rater" in turn) == (True, True, False)
    assert {name: done.result[name] for name in ("comparisons", "ties", "orders_disagree", "agrees_with_data")} == {
        "comparisons": 4, "ties": 1, "orders_disagree": 2, "agrees_with_data": 0.4375,
    }  # fmt: skip
    assert "orders disagree 2" in done.error
    assert done.result["first_preferred"] == pytest.approx((0.5 + 0.5 + 1 + 0.75) / 4, abs=1e-4)
    assert annotating.checked()["tie"] == [2]


def test_samples_of_a_prompt_are_compared_two_by_two(annotating: Annotating) -> None:
    annotating.server.answer = lambda request, number: completion({"reason": "r", "better": "tie"})
    assert (
        annotating([{"prompt": "Where? ", "responses": ["Here.", "There.", "Nowhere."]}, {"prompt": "Who? ", "responses": ["I."]}], "preference").code
        == 0
    )
    assert [(line["chosen"], line["rejected"], line["tie"]) for line in annotating.lines()] == [
        ("Here.", "There.", 1), ("Here.", "Nowhere.", 1), ("There.", "Nowhere.", 1),
    ]  # fmt: skip
    assert len(annotating.server.requests) == 6
    done = annotating([{"prompt": "Where? ", "responses": ["Here.", "There.", "Here."]}], "preference")
    assert [(line["chosen"], line["rejected"]) for line in annotating.lines()] == [("Here.", "There."), ("There.", "Here.")]
    assert [(one["kind"], one["rows"], one["action"]) for one in done.result["findings"]] == [("identical", [0], "not compared")]
    same = Row(prompt="Q", answers={"chosen": Answer(content="a"), "rejected": Answer(content="b")}, columns={"tie": 1.0})
    (line,) = PreferenceTask().write(same, [OrderedVerdict(0.5, ""), OrderedVerdict(0.5, "")], BY)
    assert line["agrees_with_data"] == 1.0


def test_rubrics_become_ratings(annotating: Annotating) -> None:
    annotating.server.answer = lambda request, number: completion({"reason": "r", "ratings": {"truth": 7, "tone": 2.0, "more": 1}})
    done = annotating([PAIR], "rubric", "--aspects", "truth", "tone", "--scale", "7")
    assert done.code == 0, done.error
    assert [(line["response"], line["ratings"]) for line in annotating.lines()] == [
        (PAIR[role], {"truth": 7, "tone": 2}) for role in ("chosen", "rejected")
    ]
    assert done.result["means"] == {"truth": 7.0, "tone": 2.0}
    assert "from 1 (very poor) to 7" in annotating.server.prompts[0]
    assert annotating.checked()["shape"] == "rated"
    ((_, row), _) = load_text(str(annotating.out)).rows
    assert row.columns == {"rating/truth": 7.0, "rating/tone": 2.0}
    assert RubricTask().aspects == ("correctness", "relevance", "clarity")


def test_the_same_texts_are_asked_once(annotating: Annotating) -> None:
    """Within a command and, from the cache, in the next one; another prompt, model or server asks again."""
    annotating.server.answer = lambda request, number: completion({"spans": []})
    rows = [{**PAIR, "rejected": f"In the {word}."} for word in ("sky", "sea", "air")]
    assert annotating(rows, "spans").code == 0
    assert len(annotating.server.requests) == 4
    done = annotating([*rows, {**PAIR, "rejected": "On fire."}], "spans")
    assert (done.code, done.result["known"], len(annotating.server.requests)) == (0, 4, 5)
    assert annotating(rows[:1], "spans", "--model", "other").code == 0
    assert len(annotating.server.requests) == 7
    own = annotating.folder / "own.txt"
    own.write_text("Judge: $answer")
    assert annotating(rows[:1], "spans", "--prompt", own).code == 0
    assert len(annotating.server.requests) == 9


def test_a_damaged_cache_asks_again(annotating: Annotating, cache: Path) -> None:
    annotating.server.answer = lambda request, number: completion({"spans": []})
    assert annotating(numbered(3), "spans").code == 0
    first, second, third = sorted((cache / "annotate").rglob("*.json"))
    first.write_text("{")
    second.write_text(json.dumps({"reply": "no JSON"}))
    third.write_text(json.dumps({"reply": 3}))
    assert annotating(numbered(3), "spans").result["known"] == 0
    assert len(annotating.server.requests) == 6


def test_a_dry_run_sends_nothing(annotating: Annotating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    done = annotating([PAIR], "preference", "--dry-run", "--key-env", "NO_SUCH_KEY", "--max-tokens", "50")
    assert done.code == 0, done.error
    assert (annotating.server.paths, annotating.out.exists(), annotating.summary.exists()) == ([], False, False)
    facts = done.result
    assert (facts["status"], facts["questions"], facts["most_reply_tokens"], facts["most_tries"]) == ("dry run", 2, 100, 3)
    prompt = Path(facts["prompt"])
    text = prompt.read_text()
    assert 2 * len(text) / 4 < facts["estimated_prompt_tokens"] < 2 * (len(text) + 100) / 4
    assert "copy and change it" in done.error


def test_a_prompt_of_ones_own(annotating: Annotating) -> None:
    """A copy with other words; places in the data are texts."""
    annotating.server.answer = lambda request, number: completion({"spans": []})
    own = annotating.folder / "own.txt"
    own.write_text("Costs $$5. {json} ${answer} after $prompt")
    assert annotating([{"prompt": "$answer? ", "completion": "${prompt} $nothing $"}], "spans", "--prompt", own).code == 0
    assert annotating.server.prompts == ["Costs $5. {json} ${prompt} $nothing $ after $answer? "]


BAD_PROMPTS = {
    "Judge $prompt": "needs the place $answer",
    "Judge $answer and $reference": "$reference is no place of --task spans, which are $prompt, $answer, $aspects",
    "Judge $answer for 5 $": "a dollar sign is written $$",
}


@pytest.mark.parametrize("text", BAD_PROMPTS)
def test_a_prompt_that_cannot_be_filled(annotating: Annotating, text: str) -> None:
    own = annotating.folder / "own.txt"
    own.write_text(text)
    done = annotating([ANSWER], "spans", "--prompt", own)
    assert (done.code, annotating.server.paths) == (2, [])
    assert BAD_PROMPTS[text] in done.error
    assert annotating([ANSWER], "spans", "--prompt", own.with_name("none.txt")).code == 2


@pytest.mark.parametrize(("given", "value"), [("aspects", "truth"), ("scale", "7")])
def test_what_a_prompt_must_say_where_no_schema_does(annotating: Annotating, given: str, value: str) -> None:
    annotating.server.answer = lambda request, number: completion({"reason": "r", "ratings": {"truth": 1}})
    own = annotating.folder / "own.txt"
    own.write_text("Rate $answer by " + ("$scale" if given == "aspects" else "$aspects"))
    own_prompt = ("rubric", "--prompt", own, f"--{given}", value)
    for form in ("text", "json-object"):
        done = annotating([ANSWER], *own_prompt, "--reply-form", form, "--dry-run")
        assert done.code == 2
        assert f"--{given}: with --reply-form {form} only the prompt can say it" in done.error
    assert annotating([ANSWER], *own_prompt, "--dry-run").code == 0
    own.write_text(f"Rate $answer by ${given}")
    assert annotating([ANSWER], *own_prompt, "--reply-form", "text", "--dry-run").code == 0


SETTINGS = {
    ("edits", "--aspects", "truth"): "--aspects belongs to",
    ("spans", "--scale", "7"): "--scale belongs to",
    ("rubric", "--scale", "1"): "--scale 1",
    ("rubric", "--most-changed", "0.1"): "--most-changed belongs to",
    ("spans", "--aspects", " "): "expected names",
    ("sentences",): "sentences",
}


@pytest.mark.parametrize("arguments", SETTINGS)
def test_settings_that_do_not_go_together(annotating: Annotating, arguments: tuple[str, ...]) -> None:
    done = annotating([ANSWER], *arguments)
    assert (done.code, annotating.server.paths) == (2, [])
    assert SETTINGS[arguments] in done.error


def test_nothing_is_replaced(annotating: Annotating) -> None:
    for taken in (annotating.out, annotating.summary):
        taken.write_text("kept")
        done = annotating.command(
            "annotate", "--data", annotating.command.data, "--by", annotating.server.url, "--task", "spans", "--out", annotating.out
        )
        assert (done.code, annotating.server.paths, taken.read_text()) == (7, [], "kept")
        taken.unlink()


@pytest.mark.slow
def test_what_is_written_trains(annotating: Annotating) -> None:
    """Spans as credit and as labels of a reward model, corrections as pairs of a reward model of edits."""
    command, server = annotating.command, annotating.server
    rows = [json.loads(line) for line in command.data.read_text().splitlines()]
    answer = lambda request: request["messages"][0]["content"].partition("<answer>\n")[2].partition("\n</answer>")[0]
    server.answer = lambda request, number: completion({"spans": [span(answer(request)[:12]), span(answer(request)[-9:], "good")]})
    assert annotating(rows, "spans").code == 0
    short = ("--max-steps", "1", "--data", annotating.out)
    done = command.prefer("labels", *short, "head:token", "loss:span-labels", command="reward")
    assert done.code == 0, done.error
    done = command.prefer("credit", *short, "credit:asr", "credit.signal:spans")
    assert done.code == 0, done.error
    server.answer = lambda request, number: completion({"edits": [{"quote": answer(request)[-9:], "replacement": "end", "reason": ""}]})
    assert annotating(rows, "edits").code == 0
    done = command.prefer("edits", *short, "head:token", "loss:fine-grained", command="reward")
    assert done.code == 0, done.error
