"""Duplicates and contradictions: checks that need the other rows, with 16 bytes of memory per slot and no stored text.

A 64-bit hash of the texts represents a row. Two different rows among a million have equal hashes with a probability below 3e-8.
"""

from array import array
from collections.abc import Iterator
from hashlib import blake2b

from finegrain.data.answer_text import join_answer
from finegrain.data.records import Row, Text

FIRST_SLOTS = 1 << 12
ABSENT = -1


class Numbers:
    """A number per 64-bit key, in two arrays (open addressing, at most two thirds full)."""

    def __init__(self) -> None:
        self._make(FIRST_SLOTS)

    def _make(self, slots: int) -> None:
        self._mask, self._used = slots - 1, 0
        self._keys, self._values = array("Q", bytes(8 * slots)), array("q", bytes(8 * slots))

    def _place(self, key: int) -> int:
        keys, mask = self._keys, self._mask
        place = key & mask
        while keys[place] and keys[place] != key:
            place = (place + 1) & mask
        return place

    def get(self, key: int) -> int:
        """The key's number, or ABSENT."""
        place = self._place(key)
        return self._values[place] if self._keys[place] else ABSENT

    def put(self, key: int, value: int) -> None:
        """Stores a number (0 or more) under a key (not 0)."""
        place = self._place(key)
        self._used += not self._keys[place]
        self._keys[place], self._values[place] = key, value
        if 3 * self._used > 2 * len(self._keys):
            self._grow()

    def _grow(self) -> None:
        keys, values = self._keys, self._values
        self._make(2 * len(keys))
        for key, value in zip(keys, values, strict=True):
            if key:
                self.put(key, value)


class Across:
    """The rows seen so far, as hashes."""

    def __init__(self) -> None:
        self._seen = Numbers()
        self._repeat_keys, self._repeat_rows = array("Q"), array("q")

    def look(self, number: int, row: Row) -> Iterator[tuple[str, int]]:
        """(kind, row number) of the findings that this row leads to, about itself and about the row it contradicts; itself last."""
        key, direction = _key(row)
        found = self._seen.get(key)
        if found == ABSENT:
            self._seen.put(key, number << 2 | 1 << direction)
            return
        first, directions = found >> 2, found & 3
        if directions & 1 << direction:
            if directions != 3:
                self._repeat_keys.append(key)
                self._repeat_rows.append(number)
            yield "duplicate", number
        if directions != 1 << direction:
            if directions != 3:
                self._seen.put(key, found | 3)
                yield "contradictory", first
            yield "contradictory", number

    def finish(self) -> Iterator[tuple[str, int]]:
        """Repeats that a later row contradicted, which `look` could not detect."""
        for key, number in zip(self._repeat_keys, self._repeat_rows, strict=True):
            if self._seen.get(key) & 3 == 3:
                yield "contradictory", number


def _key(row: Row) -> tuple[int, int]:
    """A hash of the texts that does not depend on their order, and which of them is preferred (0 or 1; a label of 0 or 1)."""
    texts = [_whole(answer.content) for answer in row.answers.values()]
    direction = int(texts[0] > texts[1]) if len(texts) == 2 else int(row.columns.get("label", 0.0) == 1.0)
    parts = [*_parts(row.prompt), row.tools, *sorted(texts)]
    digest = blake2b("".join(f"{len(part)}:{part}" for part in parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1, direction


def _whole(content: Text) -> str:
    """The text of an answer, and the other values of its messages."""
    others = "" if isinstance(content, str) else "\0".join(turn.more for turn in content)
    return join_answer(content) + others


def _parts(prompt: Text) -> list[str]:
    return [prompt] if isinstance(prompt, str) else [f"{turn.role}:{turn.content}{turn.more}" for turn in prompt]
