"""Sampled ids as answers: offsets tile the text, half a character covers nothing, and nothing is tokenised again."""

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from finegrain.data.generated import BYTE_LETTERS, GrowingText, TokenTexts, make_response
from tests.data.tiny import byte_level, pieces

TEXTS = ["hello there", "naïve café, 12 of them 🙂 and 漢字", "  two  spaces\n\nlines\t", "the answer is a good answer."]


def ids_of(tokenizer: Any, text: str) -> np.ndarray:
    return np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)


def words() -> Any:
    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(9)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="w8")


def check_tiling(response: Any) -> None:
    """Non-empty offsets follow each other from the first to the last character."""
    end = 0
    for start, stop in response.offsets.tolist():
        if (start, stop) != (0, 0):
            assert start == end < stop
            end = stop
    assert end == len(response.text)


@pytest.mark.parametrize("make", [byte_level, pieces, lambda: pieces("prepend"), words], ids=["bytes", "pieces", "prepend", "words"])
def test_offsets_tile_the_text_of_random_ids(make: Any) -> None:
    """Half characters, special tokens and ids beyond the vocabulary among them."""
    tokenizer = make()
    texts, rng = TokenTexts(tokenizer), np.random.default_rng(0)
    for _ in range(300):
        ids = rng.integers(0, len(tokenizer) + 2, rng.integers(0, 40)).astype(np.int32)
        response = make_response(ids, texts)
        check_tiling(response)
        assert np.array_equal(response.ids, ids)
        assert response.mask.all()
        special = np.isin(ids, tokenizer.all_special_ids)
        assert not response.offsets[special].any()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("make", [byte_level, pieces], ids=["bytes", "pieces"])
def test_the_text_of_real_text_is_the_text(make: Any, text: str) -> None:
    """A character of several tokens belongs to the last of them; a space before the first word is one."""
    tokenizer = make()
    ids = ids_of(tokenizer, text)
    response = make_response(ids, TokenTexts(tokenizer))
    assert response.text.removeprefix(" ") == text.removeprefix(" ")
    check_tiling(response)
    if make is byte_level:
        assert response.text == tokenizer.decode(ids)
        for (start, stop), token in zip(response.offsets.tolist(), ids.tolist(), strict=True):
            if tokenizer.decode([token]).isascii():
                assert response.text[start:stop] == tokenizer.decode([token])


@pytest.mark.parametrize("make", [byte_level, pieces], ids=["bytes", "pieces"])
def test_half_a_character_covers_nothing(make: Any) -> None:
    tokenizer = make()
    texts = TokenTexts(tokenizer)
    by_byte = {piece: token for token in range(len(tokenizer)) if (piece := texts.piece(token)) and len(piece) == 1}
    smile = [by_byte[bytes([byte])] for byte in "🙂".encode()]
    letter = by_byte[b"h"]
    ids = np.array([letter, *smile, letter, *smile[:3]])
    response = make_response(ids, texts)
    assert response.text == "h🙂h"
    assert response.offsets.tolist() == [[0, 1], [0, 0], [0, 0], [0, 0], [1, 2], [2, 3], [0, 0], [0, 0], [0, 0]]
    broken = make_response(np.array([smile[0], letter, smile[1], letter]), texts)
    assert broken.text == "\ufffdh\ufffdh"
    assert broken.offsets.tolist() == [[0, 0], [0, 2], [2, 3], [3, 4]]
    special = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert make_response(np.array([*smile[:2], special, *smile[2:], letter]), texts).text == "\ufffd\ufffdh", (
        "no character reaches over a special token"
    )


def test_the_end_token_has_no_characters_even_where_it_is_a_word() -> None:
    tokenizer = byte_level()
    texts, end = TokenTexts(tokenizer), int(ids_of(tokenizer, "x")[0])
    ids = np.append(ids_of(tokenizer, "hello"), [end, end])
    response = make_response(ids, texts, ends={end})
    assert response.text == "hellox"
    assert response.offsets[-1].tolist() == [0, 0]
    assert response.mask[-1]


@pytest.mark.parametrize("stop", ["lo th", "e", "there", "nothing"])
def test_text_ends_before_a_stop_string_and_the_tokens_stay(stop: str) -> None:
    tokenizer = byte_level()
    ids = ids_of(tokenizer, "hello there, this")
    response = make_response(ids, TokenTexts(tokenizer), stop=(stop, "absent"))
    assert response.text == "hello there, this".split(stop)[0]
    assert np.array_equal(response.ids, ids)
    check_tiling(response)


def test_a_stop_string_is_looked_for_where_it_can_be_new() -> None:
    growing = GrowingText(TokenTexts(byte_level()))
    growing.text = "stop and sto"
    assert growing.find_stop(["stop"], 3) is None, "it was there before"
    growing.text += "p it"
    assert growing.find_stop(["p it", "stop"], 4) == 9


def test_the_letters_of_bytes_are_the_tokenizers() -> None:
    assert set(BYTE_LETTERS) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTE_LETTERS.values()) == list(range(256))
    tokenizer = byte_level()
    for byte, letter in ((0x20, "Ġ"), (0x0A, "Ċ")):
        assert BYTE_LETTERS[letter] == byte
    texts = TokenTexts(tokenizer)
    assert {piece for token in range(len(tokenizer)) if (piece := texts.piece(token)) and len(piece) == 1} == {bytes([byte]) for byte in range(256)}
