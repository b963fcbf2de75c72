"""Forms that other libraries write: recognised, and read as what they say. Test of data/convert/usual.py, data/shapes.py."""

import json

import pytest

from finegrain.data.formats import recognise, rows_of_shape
from finegrain.data.left_out import LeftOut
from finegrain.data.records import Shape, Turn
from finegrain.errors import DataError

SYSTEM, HI, HELLO, BYE = Turn("system", "Be brief."), Turn("user", "hi"), Turn("assistant", "hello"), Turn("assistant", "bye")
EARLIER = (Turn("user", "one"), Turn("assistant", "two"))
HISTORY = [["one", "two"]]
BOB = Turn("user", "hi\nto Bob")
SAID_PAIR = {"chosen": "hello", "rejected": "bye"}


def dicts(*turns):
    return [{"role": turn.role, "content": turn.content} for turn in turns]


CALL = {"name": "weather", "arguments": {"city": "Rome"}}
ASKED = [{"from": "human", "value": "hi"}]
TOLD = [{"from": "observation", "value": "20"}, {"from": "gpt", "value": "hello"}]


def calls(*made):
    """The turn in which the assistant makes these calls."""
    return Turn("assistant", "", json.dumps({"tool_calls": [{"type": "function", "function": one} for one in made], "content": None}))


def calling(words):
    return {"conversations": [*ASKED, {"from": "function_call", "value": words}, *TOLD]}


def sharegpt(*turns):
    names = {"user": "human", "assistant": "gpt"}
    return [{"from": names.get(turn.role, turn.role), "value": turn.content} for turn in turns]


PAIRS = {
    "ShareGPT pairs": ("conversation pairs", {"conversations": sharegpt(HI), "chosen": sharegpt(HELLO)[0], "rejected": sharegpt(BYE)[0]}, (HI,)),
    "ShareGPT pairs with a system prompt": (
        "conversation pairs",
        {"conversations": sharegpt(HI), "system": "Be brief.", "chosen": sharegpt(HELLO)[0], "rejected": sharegpt(BYE)[0]},
        (SYSTEM, HI),
    ),
    "messages beside answers": ("conversation pairs", {"messages": dicts(*EARLIER, HI), "chosen": "hello", "rejected": "bye"}, (*EARLIER, HI)),
    "messages that are the chosen side": (
        "conversation pairs",
        {"messages": dicts(HI, HELLO), "chosen": dicts(HI, HELLO), "rejected": dicts(HI, BYE)},
        (HI,),
    ),
    "messages that end with the chosen answer": ("conversation pairs", {"messages": dicts(HI, HELLO), **SAID_PAIR}, (HI,)),
    "orca": ("instruction pairs", {"system": "Be brief.", "question": "hi", **SAID_PAIR}, (SYSTEM, HI)),
    "orca without a system prompt": ("instruction pairs", {"system": "", "question": "hi", **SAID_PAIR}, (HI,)),
    "distilabel": ("instruction pairs", {"system": "Be brief.", "input": "hi", **SAID_PAIR}, (SYSTEM, HI)),
    "query": ("instruction pairs", {"query": "hi", **SAID_PAIR}, (HI,)),
    "instruction": ("instruction pairs", {"instruction": "hi", "input": "to Bob", **SAID_PAIR}, (BOB,)),
    "instruction in full": (
        "instruction pairs",
        {"instruction": "hi", "input": "", "system": "Be brief.", "history": HISTORY, **SAID_PAIR},
        (SYSTEM, *EARLIER, HI),
    ),
    "instruction before whole conversations": (
        "instruction pairs",
        {"instruction": "hi", "chosen": dicts(HI, HELLO), "rejected": dicts(HI, BYE)},
        (HI,),
    ),
    "two outputs": ("instruction pairs", {"instruction": "hi", "input": "to Bob", "output": ["hello", "bye"]}, (BOB,)),
    "OpenAI": (
        "OpenAI preference",
        {"input": {"messages": dicts(HI), "parallel_tool_calls": True}, "preferred_output": dicts(HELLO), "non_preferred_output": dicts(BYE)},
        (HI,),
    ),
    "ms-swift": ("ms-swift pairs", {"messages": dicts(*EARLIER, HI, HELLO), "rejected_response": "bye"}, (*EARLIER, HI)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name):
    form, row, prompt = PAIRS[name]
    assert recognise(row).name == form
    (made,) = rows_of_shape(recognise(row), Shape.PREFERENCE, row)
    assert (made.prompt, made.answers["chosen"].content, made.answers["rejected"].content) == (prompt, (HELLO,), (BYE,))
    assert made.notes == ()


ANSWERS = {
    "ShareGPT": ("ShareGPT conversations", {"conversations": sharegpt(HI, HELLO)}, (HI,)),
    "ShareGPT with a system prompt": ("ShareGPT conversations", {"conversation": sharegpt(HI, HELLO), "system": "Be brief."}, (SYSTEM, HI)),
    "OpenAI": ("demonstration conversations", {"messages": dicts(SYSTEM, HI, HELLO), "parallel_tool_calls": False}, (SYSTEM, HI)),
    "Alpaca": ("instructions", {"instruction": "hi", "input": "to Bob", "output": "hello"}, (BOB,)),
    "Alpaca in full": (
        "instructions",
        {"instruction": "hi", "input": None, "output": "hello", "system": "Be brief.", "history": HISTORY},
        (SYSTEM, *EARLIER, HI),
    ),
    "Dolly": ("instructions", {"instruction": "hi", "context": "to Bob", "response": "hello", "category": "open_qa"}, (BOB,)),
    "OpenOrca": ("instructions", {"id": "n", "system_prompt": "Be brief.", "question": "hi", "response": "hello"}, (SYSTEM, HI)),
    "question and answer with a system prompt": ("instructions", {"system": "Be brief.", "question": "hi", "answer": "hello"}, (SYSTEM, HI)),
    "input and output": ("instructions", {"input": "hi", "output": "hello"}, (HI,)),
    "query and response": ("instructions", {"query": "hi", "response": "hello"}, (HI,)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_and_labelled_answers(name):
    form, row, prompt = ANSWERS[name]
    assert recognise(row).name == form
    (made,) = rows_of_shape(recognise(row), Shape.DEMONSTRATION, row)
    assert (made.prompt, made.answers["answer"].content, made.notes) == (prompt, (HELLO,), ())
    for label, value in (("kto_tag", True), ("label", 0)):
        good = {**row, label: value}
        assert recognise(good).name in ("labelled instructions", "labelled conversations")
        (judged,) = rows_of_shape(recognise(good), Shape.UNPAIRED, good)
        assert (judged.prompt, judged.columns["label"]) == (prompt, float(value))
        assert rows_of_shape(recognise(good), Shape.DEMONSTRATION, good) == ([judged] if value else [LeftOut.LABELLED_BAD])
    assert recognise({**row, "label": "sports"}).name == form, "a topic is no judgement"


@pytest.mark.parametrize(
    ("words", "turn"),
    [
        (json.dumps(CALL), calls(CALL)),
        (json.dumps([CALL, CALL]), calls(CALL, CALL)),
        (str(CALL), calls(CALL)),
        ("weather(Rome)", Turn("assistant", "weather(Rome)")),
        ('{"city": "Rome"}', Turn("assistant", '{"city": "Rome"}')),
        ("[]", Turn("assistant", "[]")),
        ("[" * 100_000, Turn("assistant", "[" * 100_000)),
    ],
)
def test_a_call_in_a_turn_of_its_own_is_what_the_assistant_says(words, turn):
    row = calling(words)
    (made,) = rows_of_shape(recognise(row), Shape.DEMONSTRATION, row)
    assert (made.prompt, made.answers["answer"].content) == ((HI,), (turn, Turn("tool", "20"), HELLO))


def test_a_conversation_with_a_rejected_answer_serves_supervised_training_whole():
    row = {"messages": dicts(*EARLIER, HI, HELLO), "rejected_response": "bye"}
    (made,) = rows_of_shape(recognise(row), Shape.DEMONSTRATION, row)
    assert (made.prompt, made.answers["answer"].content) == (EARLIER[:1], (EARLIER[1], HI, HELLO))


def test_tools_of_openais_form_travel_with_the_row():
    tools = [{"type": "function", "function": {"name": "f"}}]
    row = {"input": {"messages": dicts(HI), "tools": tools}, "preferred_output": dicts(HELLO), "non_preferred_output": dicts(BYE)}
    (made,) = rows_of_shape(recognise(row), Shape.PREFERENCE, row)
    assert json.loads(made.tools) == tools


@pytest.mark.parametrize(("row", "message"), [
    ({"instruction": "hi", "output": ["a"]}, "expected a text, or a list of two texts .*, found 1"),
    ({"instruction": "hi", "history": [["a"]], **SAID_PAIR}, r"column 'history': expected pairs \[question, answer\]"),
    ({"instruction": "hi", "history": "x", **SAID_PAIR}, r"column 'history': expected pairs"),
    ({"messages": dicts(HI), "rejected_response": "x"}, "a last turn of role assistant beside rejected_response, found 'user'"),
    ({"input": {"messages": []}, "preferred_output": "a", "non_preferred_output": "b"}, "column 'input': expected an object with a list of messages"),
    ({"instruction": 3, **SAID_PAIR}, "column 'instruction': expected text, found int"),
    ({"instruction": "hi", "input": 3, **SAID_PAIR}, "column 'input': expected text, found int"),
])  # fmt: skip
def test_cells_of_another_form_are_named(row, message):
    with pytest.raises(DataError, match=message):
        rows_of_shape(recognise(row), Shape.PREFERENCE, row)
