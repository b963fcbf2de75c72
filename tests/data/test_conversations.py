"""Conversations as files have them: given whole beside a prompt, written as text, under other names of the speakers."""

import json

import numpy as np
import pytest

from finegrain.data.findings import Findings
from finegrain.data.formats import recognise, rows_of_shape
from finegrain.data.load import Shape, Tokenise, check_rows, load_examples
from finegrain.data.messages import LONGEST, SPEAKERS
from finegrain.data.read import read
from finegrain.data.records import Turn
from finegrain.data.unlabelled import read_sample_rows
from finegrain.errors import DataError
from tests.data.tiny import CHATML, byte_level
from tests.tiny import write_rows

SYSTEM, HI, HELLO, BYE = Turn("system", "Be brief"), Turn("user", "hi"), Turn("assistant", "hello"), Turn("assistant", "bye")


def dicts(*turns):
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def convert(row, shape=Shape.PREFERENCE):
    return rows_of_shape(recognise(row), shape, row)


def save(path, rows):
    return str(write_rows(path, rows))


def spoken(row):
    """Prompt and answers as turns."""
    return row.prompt, {role: answer.content for role, answer in row.answers.items()}


PROMPT = {
    "the same": ("hi", (HI,), (HI,)),
    "as turns": (dicts(HI), (HI,), (HI,)),
    "white space aside": ("  hi\n", (HI,), (HI,)),
    "a system prompt in the answers alone": (dicts(HI), (SYSTEM, HI), (SYSTEM, HI)),
    "a system prompt in the prompt alone": (dicts(SYSTEM, HI), (HI,), (SYSTEM, HI)),
    "a system prompt in both": (dicts(SYSTEM, HI), (Turn("system", "Be  brief "), HI), (Turn("system", "Be  brief "), HI)),
    "nothing in the answers": (dicts(SYSTEM, HI), (), (SYSTEM, HI)),
    "several turns": (dicts(HI, HELLO, HI), (HI, HELLO, HI), (HI, HELLO, HI)),
}


@pytest.mark.parametrize("name", PROMPT)
def test_the_question_never_stands_twice(name):
    prompt, head, expected = PROMPT[name]
    (pair,) = convert({"prompt": prompt, "chosen": dicts(*head, HELLO), "rejected": dicts(*head, BYE)})
    assert (*spoken(pair), pair.notes) == (expected, {"chosen": (HELLO,), "rejected": (BYE,)}, ())
    for column in ("completion", "response", "answer"):
        (single,) = convert({"prompt": prompt, column: dicts(*head, HELLO)}, Shape.DEMONSTRATION)
        assert (*spoken(single), single.notes) == (expected, {"answer": (HELLO,)}, ())
    (labelled,) = convert({"prompt": prompt, "completion": dicts(*head, HELLO), "label": True}, Shape.UNPAIRED)
    assert spoken(labelled) == (expected, {"answer": (HELLO,)})


def test_sides_that_bring_the_prompt_differently_share_its_fullest_form():
    for chosen, rejected in [
        ((HELLO,), (HI, BYE)),
        ((SYSTEM, HI, HELLO), (BYE,)),
        ((HI, HELLO), (SYSTEM, HI, BYE)),
        ((SYSTEM, HI, HELLO), (HI, BYE)),
    ]:
        (pair,) = convert({"prompt": dicts(HI), "chosen": dicts(*chosen), "rejected": dicts(*rejected)})
        head = (SYSTEM, HI) if SYSTEM in (*chosen, *rejected) else (HI,)
        assert (*spoken(pair), pair.notes) == (head, {"chosen": (HELLO,), "rejected": (BYE,)}, ())
    (pair,) = convert({"prompt": "hi", "chosen": dicts(HI, HELLO, HI, HELLO), "rejected": dicts(HI, HELLO, HI, BYE)})
    assert (spoken(pair)[0], pair.notes) == ((HI, HELLO, HI), ())


OTHER = Turn("user", "something else")


def test_a_conversation_that_begins_otherwise_wins_and_is_named():
    for prompt in ("something else", dicts(OTHER), dicts(Turn("system", "Be long"), HI), dicts(HI, HELLO, HI)):
        head = (SYSTEM, HI) if prompt == dicts(Turn("system", "Be long"), HI) else (HI,)
        (pair,) = convert({"prompt": prompt, "chosen": dicts(*head, HELLO), "rejected": dicts(*head, BYE)})
        assert (*spoken(pair), pair.notes) == (head, {"chosen": (HELLO,), "rejected": (BYE,)}, ("prompt_mismatch",))
        (single,) = convert({"prompt": prompt, "completion": dicts(*head, HELLO)}, Shape.DEMONSTRATION)
        assert (*spoken(single), single.notes) == (head, {"answer": (HELLO,)}, ("prompt_mismatch",))
    (pair,) = convert({"prompt": "hi", "chosen": dicts(SYSTEM, HI, HELLO), "rejected": dicts(Turn("system", "Be long"), HI, BYE)})
    assert pair.notes == ("prompt_mismatch",)


def test_transcripts_beside_a_prompt_do_not_double_it():
    start = "\n\nHuman: hi"
    for prompt in ("hi", start, f"{start}\n\nAssistant:", dicts(HI)):
        (pair,) = convert({"prompt": prompt, "chosen": f"{start}\n\nAssistant: hello", "rejected": f"{start}\n\nAssistant: bye"})
        assert (*spoken(pair), pair.notes) == ((HI,), {"chosen": (HELLO,), "rejected": (BYE,)}, ())


def test_samples_beside_a_prompt(tmp_path):
    rows = [{"prompt": dicts(HI), "responses": [dicts(HI, HELLO), dicts(BYE), "yes"]}, {"prompt": dicts(HI), "responses": [dicts(OTHER, BYE), "no"]}]
    findings = Findings()
    ((_, _, row),) = read_sample_rows(read(save(tmp_path / "d.jsonl", rows)), findings)
    assert spoken(row) == ((HI,), {"sample-0": (HELLO,), "sample-1": (BYE,), "sample-2": (Turn("assistant", "yes"),)})
    assert findings.dropped() == {"prompt_mismatch": 1}


def test_the_column_system_is_the_systems_turn():
    sides = {"chosen": dicts(HELLO), "rejected": dicts(BYE)}
    for row in ({"prompt": dicts(HI), **sides}, {"prompt": "hi", "chosen": "hello", "rejected": "bye"}, {"prompt": "hi", **sides}):
        (pair,) = convert({"system": "Be brief", **row})
        assert spoken(pair) == ((SYSTEM, HI), {"chosen": (HELLO,), "rejected": (BYE,)})
    (implicit,) = convert({"system": "Be brief", "chosen": dicts(HI, HELLO), "rejected": dicts(HI, BYE)})
    assert spoken(implicit)[0] == (SYSTEM, HI)
    for row in ({"messages": dicts(HI, HELLO)}, {"prompt": "hi", "completion": "hello"}, {"prompt": dicts(HI), "answer": "hello"}):
        (single,) = convert({"system": "Be brief", **row}, Shape.DEMONSTRATION)
        assert spoken(single) == ((SYSTEM, HI), {"answer": (HELLO,)})
    (own,) = convert({"system": "Be long", "messages": dicts(SYSTEM, HI, HELLO)}, Shape.DEMONSTRATION)
    assert spoken(own)[0] == (SYSTEM, HI)
    (empty,) = convert({"system": "", "prompt": "hi", "chosen": "hello", "rejected": "bye"})
    assert spoken(empty)[0] == (HI,), "a conversation like the other rows of its file"
    (plain,) = convert({"system": None, "prompt": "hi", "chosen": "hello", "rejected": "bye"})
    assert plain.prompt == "hi"


@pytest.mark.parametrize("name", sorted(name for name, role in SPEAKERS.items() if role == "assistant"))
def test_every_name_of_the_assistant_is_known(name):
    for bot in (name, name.capitalize(), f" {name.upper()}"):
        for human, keys in (("Human", ("role", "content")), ("human", ("from", "value")), ("User", ("speaker", "text"))):
            said = [dict(zip(keys, turn, strict=True)) for turn in ((human, "hi"), (bot, "hello"))]
            (row,) = convert({"messages": said}, Shape.DEMONSTRATION)
            assert spoken(row) == ((HI,), {"answer": (HELLO,)})


def test_roles_that_nobody_knows_are_named(tmp_path):
    strange = [{"role": "Human", "content": "hi"}, {"role": "Wizard", "content": "hello"}]
    for row, shape in (({"messages": strange}, Shape.DEMONSTRATION), ({"chosen": strange, "rejected": strange}, Shape.PREFERENCE)):
        with pytest.raises(DataError, match="no turn of role assistant; roles found: user, Wizard"):
            convert(row, shape)
    later = dicts(HI, HELLO, HI) + strange[1:]
    with pytest.raises(DataError, match=r"ends with a turn of role 'Wizard', .*; roles found: user, assistant, Wizard"):
        convert({"messages": later}, Shape.DEMONSTRATION)
    report = check_rows(save(tmp_path / "d.jsonl", [{"messages": dicts(HI)}]), None, settings=Tokenise())
    (finding,) = report["findings"][:1]
    assert (finding["kind"], finding["example"]) == ("empty", "no turn of role assistant; roles found: user")


WRITTEN = {
    "Python": repr(dicts(HI, Turn("assistant", 'it\'s\n"so"'))),
    "JSON": json.dumps(dicts(HI, Turn("assistant", 'it\'s\n"so"'))),
    "numpy": repr(dicts(HI, Turn("assistant", 'it\'s\n"so"'))).replace("}, {", "}\n {"),
    "numpy itself": str(np.array(dicts(HI, Turn("assistant", 'it\'s\n"so"')), dtype=object)),
    "other keys": str([{"from": "human", "value": "hi"}, {"from": "gpt", "value": 'it\'s\n"so"'}]),
}


@pytest.mark.parametrize("guise", WRITTEN)
def test_conversations_written_as_text_are_read_and_named(tmp_path, guise):
    path = save(tmp_path / "d.jsonl", [{"messages": WRITTEN[guise]}, {"messages": dicts(HI, HELLO)}])
    loaded = load_examples(path, byte_level(template=CHATML), shape=Shape.DEMONSTRATION, settings=Tokenise())
    assert [example.responses["answer"].text for example in loaded.examples] == ['it\'s\n"so"', "hello"]
    (finding,) = loaded.report["findings"]
    assert (finding["kind"], finding["rows"], finding["action"]) == ("conversation_as_text", [0], "parsed")


@pytest.mark.parametrize("text", [
    "[{'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': 'hel",
    "[{'role': 'user', 'content': open('x')}]",
    "[{'role': 'user', 'content': " + "[" * 100_000 + "]" * 100_000 + "}]",
    "[{'role': 'user', 'content': '" + "x" * LONGEST + "'}]",
])  # fmt: skip
def test_a_conversation_written_as_text_that_cannot_be_parsed_is_named(text):
    with pytest.raises(DataError, match=r"column 'messages': (found a conversation written as|expected a list of messages)"):
        convert({"messages": text}, Shape.DEMONSTRATION)


@pytest.mark.parametrize("text", ["[{'role': who knows", "See {'role': 'user'} there", "[1, 2]", "{}", "[{'a': 1}]", '{"name": "role"}'])
def test_other_texts_stay_texts(text):
    (row,) = convert({"prompt": "p", "chosen": text, "rejected": "b"})
    assert row.answers["chosen"].content == text
