"""Character spans to token values and back, through a tokenizer's offsets.

A token belongs to a span when at least half of its characters are in it. Where spans overlap, the later one in the list wins.
Tokens that share a character (pieces of one multi-byte character) report that character, and so share its span.
A token without characters takes the value of the token before it, so EOS has the value of the last token of the text;
at the start of an answer it takes the value of the first token that has characters.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int

from finegrain.types import CharSpan, PlainSpan


def spans_to_tokens(spans: Sequence[CharSpan | PlainSpan], offsets: Int[np.ndarray, "T 2"], *, outside: float) -> Float32[np.ndarray, " T"]:
    """The value of each token; a token in no span has `outside`."""
    start, end = offsets[:, 0].astype(np.int64), offsets[:, 1].astype(np.int64)
    width = end - start
    values = np.full(len(offsets), outside, dtype=np.float32)
    for first, last, value, *_ in spans:
        inside = np.minimum(end, last) - np.maximum(start, first)
        values[(width > 0) & (2 * inside >= width)] = value
    return _spread(values, width > 0)


def tokens_to_spans(values: Float[np.ndarray, " T"], offsets: Int[np.ndarray, "T 2"]) -> list[CharSpan]:
    """Spans that give the same token values back; adjacent spans of equal value are merged (over at most one uncovered character).

    Where tokens of different value share characters, those characters take the later token's value.
    """
    spans: list[CharSpan] = []
    for value, start, end in zip(values.tolist(), *offsets.T.tolist(), strict=True):
        if end <= start:
            continue
        if spans and spans[-1].value == value and start <= spans[-1].end + 1:
            spans[-1] = spans[-1]._replace(end=max(end, spans[-1].end))
            continue
        while spans and spans[-1].end > start:
            cut = spans.pop()
            if cut.start < start:
                spans.append(cut._replace(end=start))
        spans.append(CharSpan(start, end, value))
    return spans


def _spread(values: Float32[np.ndarray, " T"], has_characters: np.ndarray) -> Float32[np.ndarray, " T"]:
    """Values of tokens with characters, carried forward over tokens without (and backward at the start)."""
    if not has_characters.any():
        return values
    source = np.maximum.accumulate(np.where(has_characters, np.arange(len(values)), -1))
    source[source < 0] = int(np.argmax(has_characters))
    return values[source]
