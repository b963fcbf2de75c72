"""Strings to token ids and character offsets, in batches, at the start of a text or as its continuation.

Sentencepiece-like tokenizers write a space before any text. A continuation must not get one, so it is
tokenised after an anchor, a character whose tokens do not merge with what follows, and the anchor's tokens are cut off.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from finegrain.data.records import FastTokenizer
from finegrain.errors import ModelError

ANCHORS = ("\n", "\x1d", "|", "a")


class Encoded(NamedTuple):
    """Tokens of one string."""

    ids: Int32[np.ndarray, " T"]
    offsets: Int32[np.ndarray, "T 2"]
    """Characters of the string; (k, k) for a token without characters."""


class Encoder:
    """A tokenizer that adds no special tokens and never truncates."""

    def __init__(self, tokenizer: FastTokenizer) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(f"{type(tokenizer).__name__} returns no character offsets; finegrain needs a fast tokenizer (tokenizer.json)")
        self._tokenizer = tokenizer
        first = tokenizer.convert_ids_to_tokens(self._call(["a"])[0].ids.tolist())
        self._writes_space = bool(first) and first[0].startswith(("▁", "Ġ"))

    def opening(self, texts: list[str]) -> list[Encoded]:
        """Tokens of strings that start a text."""
        return self._call(texts)

    def continuing(self, texts: list[str]) -> list[Encoded]:
        """Tokens of strings that follow other text."""
        if not self._writes_space:
            return self._call(texts)
        found: dict[str, Encoded] = {}
        for anchor in ANCHORS:
            left = [text for text in texts if text not in found]
            if not left:
                break
            head = self._call([anchor])[0].ids
            for text, encoded in zip(left, self._call([anchor + text for text in left]), strict=True):
                if (tail := _behind(encoded, head, len(anchor))) is not None:
                    found[text] = tail
        left = [text for text in texts if text not in found]
        found.update(zip(left, self._call(left), strict=True))
        return [found[text] for text in texts]

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids alone, of strings that start a text."""
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        return ids

    def _call(self, texts: list[str]) -> list[Encoded]:
        if not texts:
            return []
        batch = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
        pairs = zip(batch["input_ids"], batch["offset_mapping"], strict=True)
        return [Encoded(np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int32).reshape(-1, 2)) for ids, offsets in pairs]


def _behind(encoded: Encoded, head: np.ndarray, width: int) -> Encoded | None:
    """The tokens after an anchor; None where the anchor merged with them."""
    ids, offsets = encoded
    n = len(head)
    if not np.array_equal(ids[:n], head) or (offsets[:n, 1] > width).any() or (offsets[n:, 0] < width).any():
        return None
    return Encoded(ids[n:], offsets[n:] - np.int32(width))
