"""Prompts that stand beside answers: one that the assistant's turn ends, and one that is empty. Test of data/messages.py, data/render.py."""

import json

import pytest

from finegrain.data.load import check_rows, load_examples
from finegrain.data.records import Shape
from finegrain.data.truncate import Tokenise
from tests.data.tiny import CHATML, byte_level
from tests.tiny import write_rows

ASKED = {"role": "user", "content": "what is it?"}
BEGUN = {"role": "assistant", "content": "pre "}
SKY, SEA = ([{"role": "assistant", "content": text}] for text in ("sky", "sea"))
PREFILLED = {
    "pair": (Shape.PREFERENCE, {"prompt": [ASKED, BEGUN], "chosen": SKY, "rejected": SEA}),
    "whole": (Shape.PREFERENCE, {"prompt": [ASKED, BEGUN], "chosen": [ASKED, BEGUN, *SKY], "rejected": SEA}),
    "input": (Shape.PREFERENCE, {"input": {"messages": [ASKED, BEGUN]}, "preferred_output": SKY, "non_preferred_output": SEA}),
    "sides": (Shape.UNPAIRED, {"prompt": [ASKED, BEGUN], "chosen": SKY, "rejected": SEA}),
    "unpaired": (Shape.UNPAIRED, {"prompt": [ASKED, BEGUN], "completion": SKY, "label": True}),
    "sft": (Shape.DEMONSTRATION, {"prompt": [ASKED, BEGUN], "completion": SKY}),
}


@pytest.mark.parametrize("template", [None, CHATML], ids=["plain", "chatml"])
@pytest.mark.parametrize("name", PREFILLED)
def test_what_the_assistant_says_in_the_prompt_does_not_train(tmp_path, name, template):
    shape, row = PREFILLED[name]
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n")
    tokenizer = byte_level(template=template)
    loaded = load_examples(str(tmp_path / "d.jsonl"), tokenizer, shape=shape, settings=Tokenise(max_length=200))
    assert len(loaded.examples) == (2 if name == "sides" else 1)
    for example in loaded.examples:
        assert "pre " in example.prompt_text
        for response in example.responses.values():
            assert response.text in ("sky", "sea")
            trained = tokenizer.decode(response.ids[response.mask], skip_special_tokens=True)
            assert trained.strip() == response.text


WHOLE = {"chosen": [ASKED, *SKY], "rejected": [ASKED, *SEA]}
SYSTEM = {"role": "system", "content": "Be brief."}
SIDES = {
    "pair": WHOLE,
    "a system": {side: [SYSTEM, *turns] for side, turns in WHOLE.items()},
    "transcripts": {side: f"\n\nHuman: what is it?\n\nAssistant: {side}" for side in WHOLE},
    "unpaired": {"completion": WHOLE["chosen"], "label": False},
    "sft": {"completion": WHOLE["chosen"]},
    "messages": {"messages": WHOLE["chosen"]},
}


@pytest.mark.parametrize("prompt", [None, "", " \n", [], [{"role": "user", "content": ""}]], ids=str)
@pytest.mark.parametrize("name", SIDES)
def test_an_empty_prompt_beside_whole_conversations_is_none(tmp_path, name, prompt):
    (tmp_path / "d.jsonl").write_text(json.dumps({"prompt": prompt, **SIDES[name]}) + "\n")
    report = check_rows(str(tmp_path / "d.jsonl"), byte_level(template=CHATML), settings=Tokenise(max_length=200))
    assert report["examples_left"] == 1
    assert not {"empty", "prompt_mismatch", "missing_column"} & {one["kind"] for one in report["findings"]}


@pytest.mark.parametrize("prompt", ["", []], ids=str)
def test_an_empty_prompt_beside_answers_alone_is_empty(tmp_path, prompt):
    good, bad = ({"prompt": asked, "chosen": SKY, "rejected": SEA} for asked in ([ASKED], prompt))
    write_rows(tmp_path / "d.jsonl", (good, bad))
    report = check_rows(str(tmp_path / "d.jsonl"), None, settings=Tokenise(max_length=200))
    assert {one["kind"]: one["rows"] for one in report["findings"]}["empty"] == [1]


def test_a_row_of_another_form_is_told_so(tmp_path):
    strings = {"prompt": "what?", "chosen": "sky", "rejected": "sea"}
    write_rows(tmp_path / "d.jsonl", (strings, {"prompt": [ASKED], "chosen": SKY, "rejected": SEA}))
    (found,) = check_rows(str(tmp_path / "d.jsonl"), None, settings=Tokenise(max_length=200))["findings"]
    assert found["rows"] == [1]
    assert "this row has the form preference conversations, the file's first rows preference pairs" in found["example"]


def test_messages_of_other_keys_are_named(tmp_path):
    (tmp_path / "d.jsonl").write_text(json.dumps({"messages": [{"who": "user", "words": "hi"}]}) + "\n")
    (found,) = check_rows(str(tmp_path / "d.jsonl"), None, settings=Tokenise(max_length=200))["findings"]
    assert "expected a list of messages {role, content}, found one with the keys 'who', 'words'" in found["example"]


def test_a_weight_that_is_no_number_is_told_once(tmp_path):
    rows = [{"prompt": "what?", "chosen": "sky", "rejected": "sea"}, {"prompt": "who?", "chosen": "sky", "rejected": "sea", "weight": "heavy"}]
    write_rows(tmp_path / "d.jsonl", rows)
    (found,) = check_rows(str(tmp_path / "d.jsonl"), None, settings=Tokenise(max_length=200))["findings"]
    assert (found["kind"], found["rows"]) == ("missing_column", [1])
