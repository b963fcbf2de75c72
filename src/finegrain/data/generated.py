"""Sampled token ids as an answer: text and character offsets are derived from the ids, and never tokenised again.

A token stands for bytes. They are decoded one token after the other, so that a character belongs to the token that completes it: half a character
covers nothing, and one that is never completed is no part of the text. Special tokens and the token that ends the answer have no characters.
"""

import codecs
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from finegrain.data.assemble import Specials
from finegrain.data.records import FastTokenizer, Response

ANCHORS = ("a", "0", ".")
"""Texts of a token after which others are decoded, so that none stands at the start of a text, where a space may be left out."""
UNREADABLE = "\ufffd"


def _byte_letters() -> dict[str, int]:
    """The letters by which byte-level tokenizers write bytes: printable ones as themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTE_LETTERS = _byte_letters()


class TokenTexts:
    """The bytes of every token of a tokenizer, in the middle of a text."""

    def __init__(self, tokenizer: FastTokenizer) -> None:
        self._tokenizer = tokenizer
        self._specials = Specials(tokenizer).ids
        self._anchor: list[int] = next((ids for text in ANCHORS if len(ids := tokenizer.encode(text, add_special_tokens=False)) == 1), [])
        self._opening = self._decode(self._anchor)
        self._known: dict[int, bytes | None] = {}

    def piece(self, token: int) -> bytes | None:
        """What a token adds to a text, perhaps a part of a character; None for a special token."""
        if token not in self._known:
            self._known[token] = self._find(token)
        return self._known[token]

    def _find(self, token: int) -> bytes | None:
        if token in self._specials:
            return None
        written = self._tokenizer.convert_ids_to_tokens(token)
        if written is None:  # an embedding beyond the vocabulary
            return b""
        whole = self._decode([*self._anchor, token])
        text = whole.removeprefix(self._opening) if whole.startswith(self._opening) else self._decode([token])
        if UNREADABLE not in text:
            return text.encode()
        if len(written) == 6 and written.startswith("<0x") and written.endswith(">"):
            return bytes([int(written[3:5], 16)])
        if all(letter in BYTE_LETTERS for letter in written):
            return bytes(BYTE_LETTERS[letter] for letter in written)
        return text.encode()

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text


class GrowingText:
    """The text of an answer while it grows."""

    def __init__(self, texts: TokenTexts) -> None:
        self._texts = texts
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.text = ""

    def add(self, token: int) -> str:
        """The characters that a token completes."""
        piece = self._texts.piece(token)
        if piece is None:
            self._decoder.reset()
            return ""
        new = self._decoder.decode(piece)
        self.text += new
        return new

    def find_stop(self, stop: Sequence[str], new: int) -> int | None:
        """Where the first of these strings begins that is complete within the text, and was not before its last `new` characters came."""
        found = [place for string in stop if (place := self.text.find(string, max(0, len(self.text) - new - len(string) + 1))) >= 0]
        return min(found, default=None)


def make_response(ids: np.ndarray, texts: TokenTexts, *, ends: Collection[int] = (), stop: Iterable[str] = ()) -> Response:
    """A sampled answer as a response whose tokens all train.

    `ends`: tokens without characters where they end the answer. `stop`: strings before the first of which the text ends; the tokens stay.
    """
    growing, strings = GrowingText(texts), tuple(stop)
    offsets = np.zeros((len(ids), 2), dtype=np.int32)
    cut: int | None = None
    for place, token in enumerate(ids.tolist()):
        if place == len(ids) - 1 and token in ends:
            break
        before = len(growing.text)
        new = len(growing.add(token))
        if new:
            offsets[place] = before, before + new
        if cut is None and strings and new:
            cut = growing.find_stop(strings, new)
    text = growing.text if cut is None else growing.text[:cut]
    if cut is not None:
        offsets = np.minimum(offsets, len(text))
        offsets[offsets[:, 0] == offsets[:, 1]] = 0
    return Response(ids.astype(np.int32), np.ones(len(ids), dtype=bool), offsets, text)
