"""Stock calls of the tokenizer that is saved with a reward model give the tokens it was trained on, or the facts say that they do not."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from finegrain.data.records import Answer, Row, Turn
from finegrain.models.reward_tokenizer import CHAT_CALL, SPACED_CALL, TEXT_CALL, describe_input, encode_row, reward_tokenizer
from tests.tiny import save_tiny

CHATML = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEMPLATES = {
    "text behind the end": CHATML,
    "begins with BOS": "{{ bos_token }}" + CHATML,
    "no end token": "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}",
    "one turn": "{{ raise_exception('one turn only') if messages | length > 2 else '' }}" + CHATML,
    "ends by itself": CHATML.replace("eos_token + '\\n'", "eos_token"),
    "macro and namespace": "{% macro turn(m) %}<{{ m.role }}>{{ m.content }}{% endmacro %}{% set ns = namespace(n=0) %}"
    "{%- for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ turn(m) }}{{ eos_token }} {% endfor %}\n",
}
CONVERSATION = [{"role": "user", "content": "why ?"}, {"role": "assistant", "content": "the sky is\nblue"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def saved(tokenizer: Any, folder: Path) -> Any:
    """The tokenizer of a reward model, as it loads."""
    reward_tokenizer(tokenizer).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", TEMPLATES)
def test_conversations_end_with_the_end_token(name: str, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = TEMPLATES[name]
    again = saved(tokenizer, tmp_path)
    ids = again(again.apply_chat_template(CONVERSATION, tokenize=False), add_special_tokens=False)["input_ids"]
    row = Row(prompt=(Turn("user", "why ?"),), answers={"answer": Answer(content=(Turn("assistant", "the sky is\nblue"),))})
    assert ids == encode_row(tokenizer, row) == encode_row(again, row), "the saved template changes no token of ours"
    assert (ids[0], ids[-1], ids.count(again.bos_token_id)) == (again.bos_token_id, again.eos_token_id, 1)
    assert describe_input(again, 64)["stock_calls"][CHAT_CALL]
    opened = [{"role": "user", "content": "why ?"}]
    for ask in ({"add_generation_prompt": True}, {}):
        assert again.apply_chat_template(opened, tokenize=False, **ask) == tokenizer.apply_chat_template(opened, tokenize=False, **ask)


def test_what_cannot_be_met_is_said(tokenizer: Any, tmp_path: Path) -> None:
    """A space before the answer that joins its first word as text: other tokens, and still the end token."""
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    again = saved(tokenizer, tmp_path)
    assert not describe_input(again, 64)["stock_calls"][CHAT_CALL]
    assert again.apply_chat_template(CONVERSATION, tokenize=False).endswith(again.eos_token)
    tokenizer.chat_template = "{{ raise_exception('none at all') }}"
    assert not describe_input(saved(tokenizer, tmp_path / "none"), 64)["stock_calls"][CHAT_CALL]


@pytest.mark.parametrize("before", [None, "bytes", "sequence", "roberta"])
def test_text_gets_both_ends_and_keeps_its_offsets(before: str | None, tokenizer: Any, tmp_path: Path) -> None:
    template = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 1)])
    tokenizer.backend_tokenizer.post_processor = {
        None: template,
        "bytes": processors.ByteLevel(trim_offsets=True),
        "sequence": processors.Sequence([processors.ByteLevel(trim_offsets=False), template]),
        "roberta": processors.RobertaProcessing(("<eos>", 2), ("<bos>", 1), trim_offsets=True, add_prefix_space=False),
    }[before]
    tokenizer.init_kwargs["padding_side"] = tokenizer.padding_side = "left"  # as its file says it
    again = saved(tokenizer, tmp_path)
    told = describe_input(again, 64)
    assert (told["bos"], told["eos"], told["max_length"], told["stock_calls"][SPACED_CALL]) == (True, True, 64, True)
    assert not told["stock_calls"][TEXT_CALL], "a space at the end of the prompt joins the answer's first word"
    text = "the  sky is blue"
    bare = {"add_special_tokens": False, "return_offsets_mapping": True}
    assert again(text, **bare)["offset_mapping"] == tokenizer(text, **bare)["offset_mapping"]
    assert again(text)["input_ids"] == [1, *tokenizer(text, add_special_tokens=False)["input_ids"], 2]
    assert saved(again, tmp_path / "twice")(text)["input_ids"] == again(text)["input_ids"]
    assert (again.padding_side, again.truncation_side) == ("right", "left")


@pytest.mark.parametrize(("missing", "pieces"), [("bos", "prompt + answer + eos"), ("eos", "bos + prompt + answer")])
def test_a_tokenizer_without_one_of_them(missing: str, pieces: str, tokenizer: Any, tmp_path: Path) -> None:
    setattr(tokenizer, f"{missing}_token", None)
    again = saved(tokenizer, tmp_path)
    told = describe_input(again, 64)
    assert told[missing] is False
    assert told["template"]["text"] == pieces
    assert told["stock_calls"][SPACED_CALL]
    assert again.pad_token_id is not None
    assert again.pad_token_id != again.eos_token_id
