"""One tokenised row as bytes, and its line of the index: what can be counted without reading the row."""

import hashlib
import json
import struct
from collections.abc import Sequence
from itertools import starmap
from typing import Any

import numpy as np

from finegrain.data.records import Example, Response
from finegrain.types import CharSpan, Json

PLAIN = CharSpan(0, 0, 0.0)[3:]
"""What a span says beside place and value where it says nothing."""
NARROW = 1 << 16
"""Character offsets into a shorter text (in bytes) take two bytes each, others four."""
SPAN = struct.Struct("<qqd")
"""Place and value; what else a span says is text in the record (`_details`), which ordinary rows do not have."""

START, ROW, PROMPT, PROMPT_TEXT, IDS_KEY, TEXT_KEY, SOURCE, DETAILS, FIXED = range(9)
"""Positions in the index that every row has; the keys are hashes of the prompt's tokens and of its text."""
TOKENS, TRAINED, TEXT, SPANS, REWARDS, PER_ROLE = range(6)
"""Positions per answer, after the fixed ones; -1 spans or rewards: there are none, not even an empty list; -1 bytes of text: no such answer."""
NO_ANSWER = (0, 0, -1, -1, -1)
"""The facts of an answer that a row of ranked answers lacks."""


def _key(data: bytes) -> int:
    """Signed, as stored in the index."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big", signed=True)


def pack_example(example: Example, roles: tuple[str, ...], start: int) -> tuple[bytes, list[int]]:
    """An example as bytes, and its line of the index; wider items come first, so every array is aligned."""
    responses = [example.responses[role] for role in roles]
    spans = [example.spans[role] for role in roles]
    rewards = [example.token_rewards[role] for role in roles]
    prompt, prompt_text = _bytes(example.prompt, np.int32), example.prompt_text.encode("utf-8", "surrogatepass")
    texts = [response.text.encode("utf-8", "surrogatepass") for response in responses]
    source, details = example.source.encode(), _details(example, roles)
    parts = [
        prompt,
        *(_bytes(response.ids, np.int32) for response in responses),
        *(_bytes(values, np.float32) for values in rewards if values is not None),
        *(_bytes(response.offsets, _width(len(text))) for response, text in zip(responses, texts, strict=True)),
        *(_bytes(response.mask, np.bool_) for response in responses),
        *(SPAN.pack(*span[:3]) for own in spans for span in own or ()),
        prompt_text,
        *texts,
        source,
        details,
    ]
    facts = [start, example.row, len(example.prompt), len(prompt_text), _key(prompt), _key(prompt_text), len(source), len(details)]
    for response, text, own, values in zip(responses, texts, spans, rewards, strict=True):
        counts = (-1 if own is None else len(own), -1 if values is None else len(values))
        facts += [len(response.ids), int(np.count_nonzero(response.mask)), len(text), *counts]
    parts.append(bytes(-sum(map(len, parts)) % 4))
    return b"".join(parts), facts


def _bytes(array: np.ndarray, dtype: Any) -> bytes:
    return array.astype(dtype, copy=False).tobytes()


def _width(text: int) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if text < NARROW else np.uint32


class _Reader:
    """Reads the parts of a record one after the other."""

    def __init__(self, records: np.ndarray, start: int) -> None:
        self._records, self._at = records, start

    def array(self, count: int, dtype: Any, width: int) -> np.ndarray:
        """The next `count` items, as a view."""
        begin, self._at = self._at, self._at + count * width
        return self._records[begin : self._at].view(dtype)

    def text(self, size: int) -> str:
        """The next `size` bytes."""
        return self.array(size, np.uint8, 1).tobytes().decode("utf-8", "surrogatepass")

    def spans(self, count: int) -> list[CharSpan] | None:
        """The next spans; None for -1."""
        return None if count < 0 else list(starmap(CharSpan, SPAN.iter_unpack(self.array(count * SPAN.size, np.uint8, 1).tobytes())))


def unpack_example(records: np.ndarray, facts: list[int], roles: Sequence[str], columns: dict[str, float]) -> Example:
    """The example whose line of the index is `facts`; its arrays are views of the records."""
    own = [one for begin in range(FIXED, len(facts), PER_ROLE) if (one := facts[begin : begin + PER_ROLE])[TEXT] >= 0]
    roles = roles[: len(own)]
    read = _Reader(records, facts[START])
    prompt = read.array(facts[PROMPT], np.int32, 4)
    ids = [read.array(one[TOKENS], np.int32, 4) for one in own]
    rewards = [None if one[REWARDS] < 0 else read.array(one[REWARDS], np.float32, 4) for one in own]
    offsets = [_offsets(read, one) for one in own]
    masks = [read.array(one[TOKENS], np.bool_, 1) for one in own]
    spans = [read.spans(one[SPANS]) for one in own]
    prompt_text = read.text(facts[PROMPT_TEXT])
    texts = [read.text(one[TEXT]) for one in own]
    source = read.text(facts[SOURCE])
    spans, annotators = _with_details(spans, json.loads(read.text(facts[DETAILS]))) if facts[DETAILS] else (spans, [()] * len(own))
    return Example(
        row=facts[ROW],
        prompt=prompt,
        prompt_text=prompt_text,
        responses=dict(zip(roles, map(Response, ids, masks, offsets, texts), strict=True)),
        columns=columns,
        spans=dict(zip(roles, spans, strict=True)),
        token_rewards=dict(zip(roles, rewards, strict=True)),
        source=source,
        annotators={role: names for role, names in zip(roles, annotators, strict=True) if names},
    )


def _details(example: Example, roles: Sequence[str]) -> bytes:
    """What spans say beside place and value, and who looked at the answers, as JSON; empty where the row says neither."""
    more = [[span[3:] for span in example.spans[role] or ()] for role in roles]
    looked = [example.annotators.get(role, ()) for role in roles]
    if not any(looked) and not any(part != PLAIN for own in more for part in own):
        return b""
    return json.dumps({"spans": more, "annotators": looked}).encode()


def _with_details(spans: list[list[CharSpan] | None], details: Json) -> tuple[list[list[CharSpan] | None], list[tuple[str, ...]]]:
    whole = [
        None if own is None else [CharSpan(*span[:3], *part) for span, part in zip(own, parts, strict=True)]
        for own, parts in zip(spans, details["spans"], strict=True)
    ]
    return whole, [tuple(names) for names in details["annotators"]]


def _offsets(read: _Reader, own: list[int]) -> np.ndarray:
    dtype = _width(own[TEXT])
    return read.array(2 * own[TOKENS], dtype, np.dtype(dtype).itemsize).astype(np.int32).reshape(-1, 2)
