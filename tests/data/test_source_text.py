"""A tokenised row gives its text back, so that another tokenizer can read it."""

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from finegrain.data.findings import Findings
from finegrain.data.records import Answer, Row, Turn
from finegrain.data.source_text import lend_answer, read_source_row
from finegrain.data.store import collect
from finegrain.data.tokenise import Tokenise, tokenise
from finegrain.types import CharSpan
from tests.tiny import save_tiny

ASKED = (Turn("system", "be kind"), Turn("user", "why ?"))
CALL = Turn("assistant", "", '{"tool_calls": [{"function": {"name": "look", "arguments": {"at": "猫"}}}]}')
ROWS = {
    "strings": Row(
        prompt="why ?", answers={"chosen": Answer(content=" so", spans=[CharSpan(0, 2, 1.0, 0.5, "tone", "anna")]), "rejected": Answer(content=" no")}
    ),
    "glue": Row(prompt="why ?", answers={"chosen": Answer(content="so"), "rejected": Answer(content="no")}, columns={"margin": 2.0}, glue="\n\n"),
    "conversation": Row(
        prompt=ASKED,
        answers={
            "chosen": Answer(content=(CALL, Turn("tool", "9"), Turn("assistant", "so", '{"weight": 1}'))),
            "rejected": Answer(content=(Turn("assistant", "no"),)),
        },
        tools='[{"name": "look"}]',
    ),
}


@pytest.mark.parametrize("kind", ROWS)
def test_the_row_comes_back(kind: str, tmp_path: Path) -> None:
    """Through the files of a store too; token rewards belong to the tokens and stay behind."""
    tokenizer, row = AutoTokenizer.from_pretrained(save_tiny(tmp_path / "model")), ROWS[kind]
    (example,) = collect(tokenise([(3, row)], tokenizer, Tokenise(), Findings()))
    assert read_source_row(example) == row
    assert (example.source == "") == (kind == "strings")


def test_an_answer_that_is_lent_comes_with_its_turns(tmp_path: Path) -> None:
    tokenizer, one = AutoTokenizer.from_pretrained(save_tiny(tmp_path / "model")), ROWS["conversation"]
    other = replace(
        one, answers={"chosen": Answer(content=(Turn("assistant", "else"),)), "rejected": Answer(content=(Turn("assistant", "nothing"),))}
    )
    store = collect(tokenise([(0, one), (1, other)], tokenizer, Tokenise(), Findings()))
    lent = read_source_row(store.lend("chosen", store.places[::-1], "mismatched")[0])
    assert lent.answers["mismatched"].content == (Turn("assistant", "else"),)
    assert lend_answer("", '{"answers": {"chosen": []}}', "chosen", "new") == "", "strings need no source"
