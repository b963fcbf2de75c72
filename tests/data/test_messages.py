"""What the keys of messages become as tokens: calls of tools, reasoning, weights; templates that move reasoning; templates that fail."""

import threading
import time

import pytest

from finegrain.data import templates
from finegrain.data.findings import Findings
from finegrain.data.formats import recognise, rows_of_shape
from finegrain.data.records import Shape
from finegrain.data.spans import spans_to_tokens
from finegrain.data.time_limit import TimeLimit
from finegrain.data.tokenise import tokenise
from finegrain.data.truncate import Tokenise
from tests.data.tiny import CALLS_ALONE, CHATML, MOVES_THOUGHTS, OPENS_THOUGHTS, byte_level

CALL = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": {"q": 1}}}
DELETE = {"id": "c1", "type": "function", "function": {"name": "delete", "arguments": {}}}


def user(text, **more):
    return {"role": "user", "content": text, **more}


def bot(text, **more):
    return {"role": "assistant", "content": text, **more}


def messages(*turns, **columns):
    return {"messages": list(turns), **columns}


def pair(chosen, rejected, **columns):
    return {"prompt": [user("q")], "chosen": [chosen], "rejected": [rejected], **columns}


def examples(template, *raws):
    """Every row's examples and the findings, whatever the gate says of them."""
    findings, tokenizer = Findings(), byte_level(template=template)
    made = []
    for number, raw in enumerate(raws):
        entry = recognise(raw)
        shape = Shape.PREFERENCE if entry.pairs else Shape.DEMONSTRATION
        made += [(number, row) for row in rows_of_shape(entry, shape, raw)]
    return tokenizer, list(tokenise(made, tokenizer, Tokenise(), findings)), findings


def trains(tokenizer, response):
    """What trains, its last token (the end) left out."""
    return tokenizer.decode(response.ids[response.mask]).removesuffix("</s>")


def marked(example, role, value):
    """Characters of tokens whose span has this value, as decoded text of the rendering."""
    response = example.responses[role]
    values = spans_to_tokens(example.spans[role], response.offsets, outside=0.0)
    return "".join(
        response.text[start:end] for (start, end), one in zip(response.offsets.tolist(), values, strict=True) if one == value and end > start
    )


def test_a_call_trains_as_the_template_writes_it():
    """Case 1, with a template that shows calls: the call and what closes it, of the calling turn and of the last one."""
    talk = [user("find"), bot(None, tool_calls=[CALL]), {"role": "tool", "name": "search", "tool_call_id": "c1", "content": "found"}, bot("Here.")]
    tokenizer, (example,), findings = examples(MOVES_THOUGHTS, messages(*talk))
    call = '<tool_call>\n{"name": "search", "arguments": {"q": 1}}\n</tool_call>'
    response = example.responses["answer"]
    assert example.prompt_text == "<|im_start|>user\nfind<|im_end|>\n<|im_start|>assistant\n"
    assert trains(tokenizer, response) == f"<think>\n\n</think>\n\n\n{call}<|im_end|><think>\n\n</think>\n\nHere.<|im_end|>"
    assert response.text == f"{call}\n\nTool: found\n\nAssistant: Here."
    assert "".join(response.text[start:end] for start, end in response.offsets.tolist()) == f"{call}Here."
    assert findings.by_kind["unread"].example == "message keys that are not read: name, tool_call_id"


def test_pairs_that_differ_in_what_the_template_does_not_show_say_so():
    _, found, findings = examples(CHATML, pair(bot("a", tool_calls=[CALL]), bot("a", tool_calls=[DELETE])))
    assert found == []
    assert "leaves out what they differ in" in findings.by_kind["identical_after_truncation"].example


def test_pairs_that_differ_in_a_call_alone_train_on_it():
    tokenizer, found, findings = examples(CALLS_ALONE, pair(bot("", tool_calls=[CALL]), bot("", tool_calls=[DELETE]), tools=[{"type": "function"}]))
    assert found[0].prompt_text.startswith('[{"type": "function"}]<|im_start|>user')
    assert trains(tokenizer, found[0].responses["chosen"]) == '{"name": "search", "arguments": {"q": 1}}<|im_end|>'
    assert trains(tokenizer, found[0].responses["rejected"]) == '{"name": "delete", "arguments": {}}<|im_end|>'
    assert not findings.by_kind.keys() - {"boundary_differs"}


def test_what_a_template_does_not_show_is_named_and_never_trains_as_an_empty_turn():
    talk = messages(user("find"), bot(None, tool_calls=[CALL]), {"role": "tool", "content": "found"}, bot("Here."), tools=[{"type": "function"}])
    tokenizer, found, findings = examples(
        CHATML, talk, messages(user("find"), bot("", tool_calls=[CALL])), messages(user("q"), bot("a", images=["a.png"]))
    )
    assert [example.row for example in found] == [0, 2]
    assert trains(tokenizer, found[0].responses["answer"]) == "Here.<|im_end|>"
    assert findings.dropped() == {"template": 1}
    assert "does not write the assistant's text (tool_calls)" in findings.in_words()
    unread = findings.by_kind["unread"]
    assert unread.distinct() == [0, 2]
    assert unread.example == "message keys that are not read: images, tool_calls; columns that are not read: tools"
    _, _, findings = examples(CALLS_ALONE, messages(user("find"), bot("Let me see.", tool_calls=[CALL])))
    assert findings.by_kind["template"].example == "the chat template leaves out the text beside a call"


def test_without_a_template_calls_and_reasoning_are_written_in_plain_form():
    tokenizer, (example,), _ = examples(None, messages(user("q"), bot("a", tool_calls=[CALL], reasoning="hm")))
    assert trains(tokenizer, example.responses["answer"]) == f" {example.responses['answer'].text}"
    assert example.responses["answer"].text == '<think>\nhm\n</think>\n\na\n<tool_call>\n{"name": "search", "arguments": {"q": 1}}\n</tool_call>'


@pytest.mark.parametrize("flag", [{"weight": 0}, {"train": False}, {"loss": False}, {"weight": 0, "train": False}])
@pytest.mark.parametrize("template", [CHATML, MOVES_THOUGHTS, None])
def test_a_turn_that_the_data_exclude_does_not_train(flag, template):
    """Case 2: neither its words nor its end."""
    tokenizer, (example,), findings = examples(template, messages(user("a"), bot("not this", **flag), user("b"), bot("this", weight=1)))
    learnt = trains(tokenizer, example.responses["answer"])
    assert "not" not in learnt
    assert learnt.strip().removesuffix("<|im_end|>").endswith("this")
    assert learnt.count("<|im_end|>") == (template is not None)
    assert "not this" in example.responses["answer"].text
    assert not findings.by_kind.keys() - {"boundary_differs"}


def test_weights_may_be_text_and_what_is_no_weight_is_named():
    said = [bot("a", weight=weight) for weight in ("0", "False", "1", True, [0, 1])]
    _, found, findings = examples(CHATML, *(messages(user("q"), one) for one in said))
    assert [example.row for example in found] == [2, 3, 4]
    assert findings.dropped() == {"untrained": 2}
    assert findings.by_kind["unread"].distinct() == [4]


def test_weights_that_cannot_be_followed_are_named():
    last, half = messages(user("a"), bot("this"), user("b"), bot("not this", weight=0)), messages(user("a"), bot("b", weight=0.5))
    tokenizer, found, findings = examples(CHATML, messages(user("a"), bot("b", weight=0)), last, half)
    assert findings.dropped() == {"untrained": 1}
    assert findings.by_kind["fractional_weight"].example == "a turn with weight 0.5 trains in full"
    assert trains(tokenizer, found[0].responses["answer"]) == "this<|im_end|>"
    assert not found[0].responses["answer"].mask[-1]


THOUGHT = "<think>\nwell\n</think>\n\n"


@pytest.mark.parametrize("thought", [THOUGHT, "<think>well</think>", "<think>\nwell\n</think>\ngood"[:-4], "key"])
def test_a_thought_that_the_template_moves_trains(thought):
    """Case 12: inside the content however it is spaced, or under a key; a rejected answer without one has an empty one."""
    said = bot("good answer", reasoning_content="well") if thought == "key" else bot(f"{thought}good answer")
    at = 0 if thought == "key" else len(thought)
    tokenizer, (example,), findings = examples(MOVES_THOUGHTS, pair(said, bot("bad"), chosen_spans=[[at, at + 4, -1.0]]))
    assert example.prompt_text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert trains(tokenizer, example.responses["chosen"]) == f"{THOUGHT}good answer<|im_end|>"
    assert trains(tokenizer, example.responses["rejected"]) == "<think>\n\n</think>\n\nbad<|im_end|>"
    assert marked(example, "chosen", -1.0) == "good"
    assert example.responses["chosen"].text == (f"{THOUGHT}good answer" if thought == "key" else f"{thought}good answer")
    assert not findings.by_kind.keys() - {"boundary_differs"}


@pytest.mark.parametrize("said", [bot("<think>\nwell\n</think>\n\n"), bot("", reasoning_content="well")])
def test_a_thought_alone_trains_to_its_end(said):
    tokenizer, (example,), _ = examples(MOVES_THOUGHTS, messages(user("q"), said))
    assert trains(tokenizer, example.responses["answer"]) == f"{THOUGHT}<|im_end|>"


def test_a_thought_that_the_template_takes_out_is_put_back():
    """The generation prompt opens the thought where every answer of the row has one."""
    both, half = (
        pair(bot(f"{THOUGHT}good"), bot("hm\n</think>\n\nbad")),
        pair(bot(f"{THOUGHT}good"), bot("bad"), chosen_spans=[[len(THOUGHT), len(THOUGHT) + 4, 1.0]]),
    )
    tokenizer, (first, second), findings = examples(OPENS_THOUGHTS, both, half)
    assert first.prompt_text.endswith("<|im_start|>assistant\n<think>\n")
    assert trains(tokenizer, first.responses["chosen"]) == "well\n</think>\n\ngood<|im_end|>"
    assert trains(tokenizer, first.responses["rejected"]) == "hm\n</think>\n\nbad<|im_end|>"
    assert second.prompt_text.endswith("<|im_start|>assistant\n")
    assert trains(tokenizer, second.responses["chosen"]) == f"{THOUGHT}good<|im_end|>"
    assert trains(tokenizer, second.responses["rejected"]) == "bad<|im_end|>"
    assert marked(second, "chosen", 1.0) == "good"
    assert findings.by_kind["reasoning"].action() == "put back"
    assert findings.count("reasoning") == 3


def test_an_earlier_turn_whose_thought_is_taken_out_does_not_train():
    tokenizer, (example,), findings = examples(
        MOVES_THOUGHTS, messages(user("a"), bot(f"{THOUGHT}one"), user("b"), bot("two", reasoning_content="hm"))
    )
    assert trains(tokenizer, example.responses["answer"]) == "<think>\nhm\n</think>\n\ntwo<|im_end|>"
    assert "make it a separate row" in findings.by_kind["reasoning"].example
    _, (plain,), findings = examples(MOVES_THOUGHTS, messages(user("a"), bot("one"), user("b"), bot("two")))
    assert plain.responses["answer"].mask.sum() > example.responses["answer"].mask.sum() - 4
    assert "reasoning" not in findings.by_kind


FAILING = {
    "a type": "{{ messages[0].content + 1 }}",
    "a division": "{{ 1 / (messages | length - messages | length) }}",
    "a range": "{% for i in range(10 ** 9 if false else 1000000000) %}{% endfor %}",
    "an overflow": "{{ (messages | length * 2.0e307 * 10) | int }}",
    "a number that is none": "{{ 2.0e308 | int }}",
    "memory": "{{ 'a' * (messages | length) * 100000000000000000 }}",
    "undefined": "{{ messages[0].nothing.more }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "syntax": "{% for %}",
    "a power": "{{ 9 ** 9 ** 9 }}",
    "no default": {"rag": CHATML},
}


@pytest.mark.parametrize("template", FAILING.values(), ids=FAILING.keys())
def test_whatever_fails_in_a_template_is_a_finding(template):
    _, found, findings = examples(template, messages(user("q"), bot("a")), {"prompt": "a string", "completion": "passes"})
    assert [example.row for example in found] == [1]
    assert findings.dropped() == {"template": 1}
    assert findings.by_kind["template"].example.startswith("the chat template")


ENDLESS = "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_endless_template_is_stopped_and_soon_not_tried_again(monkeypatch, elsewhere):
    monkeypatch.setattr(templates, "SECONDS", 0.1)
    found = []
    tried = []
    limited = TimeLimit.__call__
    monkeypatch.setattr(TimeLimit, "__call__", lambda limit, call: tried.append(call) or limited(limit, call))
    rows = [messages(user("q"), bot(f"a {i}")) for i in range(40)]
    work = lambda: found.append(examples(ENDLESS, *rows)[2])
    began = time.monotonic()
    if elsewhere:
        (thread := threading.Thread(target=work)).start()
        thread.join()
    else:
        work()
    assert time.monotonic() - began < 20
    assert 0 < len(tried) <= templates.PATIENCE
    assert found[0].dropped() == {"template": 40}
    assert "took longer than 0.1 seconds" in found[0].in_words()


def test_a_time_limit_ends_a_call_and_nothing_else():
    limit = TimeLimit(0.2)
    assert limit(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        limit(lambda: 1 / 0)
    with pytest.raises(TimeoutError, match=r"longer than 0\.2 seconds"):
        limit(lambda: [i for i in iter(int, 1)])
    assert sum(limit(lambda: 1) for _ in range(1000)) == 1000


def test_half_a_surrogate_pair_under_a_key_is_no_text():
    _, found, findings = examples(CALLS_ALONE, messages(user("q"), bot("a"), tools=[{"name": "\ud800"}]), messages(user("q"), bot("a")))
    assert [example.row for example in found] == [1]
    assert findings.dropped() == {"encoding": 1}


@pytest.mark.parametrize(
    ("wants", "gets"),
    [
        ("c.function.arguments | tojson", '{"q": 1}'),
        ("(c.function.arguments.items() | list)[0][1]", "1"),
        ("'{\"q\": ' + c.function.arguments[6:]", '{"q": 1}'),
    ],
)
@pytest.mark.parametrize("arguments", [{"q": 1}, '{"q": 1}'])
def test_arguments_of_calls_reach_the_template_in_the_form_it_wants(wants, gets, arguments):
    template = CALLS_ALONE.replace("c.function | tojson", f"c.function.name ~ ({wants})")
    call = {"type": "function", "function": {"name": "search", "arguments": arguments}}
    tokenizer, (example,), _ = examples(template, messages(user("q"), bot(None, tool_calls=[call])))
    assert trains(tokenizer, example.responses["answer"]) == f"search{gets}<|im_end|>"


NAMED_TWICE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{{ m.content }}{% for c in m.tool_calls or [] %}[call {{ c.function.name }}]"
    "{% endfor %}"
    "{% elif m.role == 'tool' %}<|result|>{{ messages[loop.index0 - 1].tool_calls[0].function.name }}: {{ m.content }}"
    "{% else %}<|user|>{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_a_call_whose_name_stands_again_in_the_result_and_whose_turn_nothing_ends():
    talk = messages(user("q"), bot("", tool_calls=[CALL]), {"role": "tool", "content": "found"}, bot("Here."))
    tokenizer, (example,), _ = examples(NAMED_TWICE, talk)
    assert trains(tokenizer, example.responses["answer"]) == "[call search]Here."
    assert "<|result|>search: found" in tokenizer.decode(example.responses["answer"].ids)
