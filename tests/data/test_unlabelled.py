"""Samples without labels: what is read, what is left out and counted, what is refused."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from finegrain.data.truncate import Tokenise
from finegrain.data.unlabelled import Unlabelled, load_samples
from finegrain.errors import DataError
from tests.tiny import save_tiny, write_rows


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(save_tiny(tmp_path_factory.mktemp("model")))


def load(folder: Path, tokenizer: Any, *rows: Any, length: int = 64) -> Unlabelled:
    file = folder / "samples.jsonl"
    write_rows(file, rows)
    return load_samples(str(file), tokenizer, settings=Tokenise(max_length=length))


def test_ragged_samples_and_what_is_left_out(tmp_path: Path, tokenizer: Any) -> None:
    found = load(
        tmp_path,
        tokenizer,
        {"prompt": "why a ?", "responses": [" yes", " no", " the cat"]},
        {"prompt": "why b ?", "responses": [" yes"]},
        {"prompt": "why c ?", "responses": []},
        {"prompt": "why d ?", "responses": [" good", " bad"]},
    )
    assert [len(example.responses) for example in found.examples] == [3, 2]
    assert [response.text for response in found.examples[0].responses.values()] == [" yes", " no", " the cat"]
    assert all(int(response.ids[-1]) == tokenizer.eos_token_id for response in found.examples[0].responses.values())
    assert (found.report["rows"], found.report["prompts"], found.report["samples"]) == (4, 2, 5)
    (left_out,) = found.report["findings"]
    assert (left_out["kind"], left_out["count"], left_out["rows"]) == ("fewer_than_two_samples", 2, [1, 2])


def test_conversations(tmp_path: Path, tokenizer: Any) -> None:
    """Answers to messages may be text or messages, to the same tokens."""
    prompt = [{"role": "user", "content": "why a ?"}]
    (example,) = load(tmp_path, tokenizer, {"prompt": prompt, "responses": ["yes", [{"role": "assistant", "content": "yes"}]]}).examples
    one, other = example.responses.values()
    assert one.ids.tolist() == other.ids.tolist()
    assert one.text == "yes"


def test_long_samples_are_cut_and_counted(tmp_path: Path, tokenizer: Any) -> None:
    found = load(tmp_path, tokenizer, {"prompt": "why a ?", "responses": [" yes" * 60, " no"]}, length=20)
    (example,) = found.examples
    assert len(example.prompt) + max(len(response.ids) for response in example.responses.values()) <= 20
    assert {finding["kind"] for finding in found.report["findings"]} >= {"answer_truncated"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "missing responses"),
        ({"responses": ["b", "c"]}, "missing prompt"),
        ({"prompt": "a", "responses": "b"}, "list of answers"),
        ({"prompt": "a", "responses": ["b", 3]}, "list of texts"),
        ({"prompt": [{"role": "user", "content": "a"}], "responses": ["b", 3]}, "list of messages"),
        ({"prompt": 3, "responses": ["b", "c"]}, "list of messages"),
        ({"prompt": "a", "responses": ["b"]}, "no prompt has at least 2 samples in 1 rows; left out: fewer_than_two_samples 1"),
    ],
)
def test_refused(tmp_path: Path, tokenizer: Any, row: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(tmp_path, tokenizer, row)
