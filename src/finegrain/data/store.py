"""Tokenised rows on disk: what a million of them cost in memory is an index of their lengths, not the rows.

Rows are appended to unnamed files in the folder for temporary files ($TMPDIR) and read through a memory map. The files
have no name, so they are gone with the last view of them, however the process ends.
"""

import hashlib
import mmap
import operator
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import IO, Any, NamedTuple, overload

import numpy as np
from jaxtyping import Int64, UInt64

from finegrain.data.records import Example, Response
from finegrain.errors import DataError
from finegrain.types import CharSpan

BUFFER = 1 << 18
NARROW = 1 << 16
"""Character offsets into a shorter text (in bytes) take two bytes each, others four."""
SPAN = struct.Struct("<qqd")

START, ROW, PROMPT, PROMPT_TEXT, IDS_KEY, TEXT_KEY, FIXED = range(7)
"""Places in the index of what every row has; the keys are hashes of the prompt's tokens and of its text."""
TOKENS, TRAINED, TEXT, SPANS, REWARDS, PER_ROLE = range(6)
"""Places of what every answer has, behind the fixed ones; -1 spans or rewards: there are none, not even an empty list."""


@dataclass(frozen=True, eq=False)
class _Files:
    """The arrays behind every view of a store."""

    records: np.ndarray
    """(bytes,) uint8, one record after the other: see `_record`."""
    index: np.ndarray
    """(N, FIXED + PER_ROLE * roles) int64."""
    columns: np.ndarray
    """(N, C) float64."""
    roles: tuple[str, ...]
    names: Mapping[str, int]
    """Columns that every row has, by place."""
    partial: tuple[str, ...]
    """Names of columns that some rows lack; their values are not kept."""


class Borrowed(NamedTuple):
    """An answer that stands in for a further role."""

    role: str
    """The role it has in its own row."""
    rows: Int64[np.ndarray, " N"]
    """Its row in the files, for every row of the view."""


@dataclass(frozen=True, eq=False)
class ExampleStore(Sequence[Example]):
    """Examples on disk; a slice or a selection is another view of the same files."""

    files: _Files
    places: Int64[np.ndarray, " N"]
    """The view's rows in the files."""
    borrowed: Mapping[str, Borrowed] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "ExampleStore": ...
    def __getitem__(self, index: Any) -> "Example | ExampleStore":
        if isinstance(index, slice):
            return self._at(index)
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"row {place} of {len(self)}")
        example = _example(self.files, int(self.places[place]))
        for role, lent in self.borrowed.items():
            example.responses[role] = _example(self.files, int(lent.rows[place])).responses[lent.role]
        return example

    def __iter__(self) -> Iterator[Example]:
        return (self[place] for place in range(len(self)))

    def take(self, rows: np.ndarray) -> "ExampleStore":
        """The view of some rows, given by number or by a mask."""
        return self._at(rows)

    def _at(self, rows: Any) -> "ExampleStore":
        borrowed = {role: one._replace(rows=one.rows[rows]) for role, one in self.borrowed.items()}
        return replace(self, places=self.places[rows], borrowed=borrowed)

    def lend(self, role: str, rows: np.ndarray, new: str) -> "ExampleStore":
        """The view with a further role: the answer `role` of the rows `rows` of this view, one for every row."""
        return replace(self, borrowed={**self.borrowed, new: Borrowed(role, self.places[rows])})

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of every row, borrowed ones left out."""
        return self.files.roles

    @property
    def columns(self) -> list[str]:
        """Names of the columns, sorted."""
        return sorted(self.files.names)

    @property
    def prompt_lengths(self) -> Int64[np.ndarray, " N"]:
        """Tokens of the prompts."""
        return self._fact(PROMPT)

    @property
    def prompt_keys(self) -> UInt64[np.ndarray, " N"]:
        """The first eight bytes of the SHA-256 of the prompts' tokens, as a number: ordered as the hashes are."""
        return self._fact(IDS_KEY).view(np.uint64)

    @property
    def prompt_text_keys(self) -> UInt64[np.ndarray, " N"]:
        """The same of the prompts' texts."""
        return self._fact(TEXT_KEY).view(np.uint64)

    def answer_lengths(self, role: str) -> Int64[np.ndarray, " N"]:
        """Tokens of the answers."""
        return self._of_role(TOKENS, role)

    def trained_lengths(self, role: str) -> Int64[np.ndarray, " N"]:
        """Tokens of the answers that train."""
        return self._of_role(TRAINED, role)

    def annotated(self, role: str) -> int:
        """Answers with spans, be it an empty list."""
        return int((self._of_role(SPANS, role) >= 0).sum())

    def rewarded(self, role: str) -> int:
        """Answers with token rewards."""
        return int((self._of_role(REWARDS, role) >= 0).sum())

    def _of_role(self, what: int, role: str) -> Int64[np.ndarray, " N"]:
        lent = self.borrowed.get(role, Borrowed(role, self.places))
        return self._fact(FIXED + PER_ROLE * self.files.roles.index(lent.role) + what, lent.rows)

    def _fact(self, what: int, places: np.ndarray | None = None) -> Int64[np.ndarray, " N"]:
        return np.ascontiguousarray(self.files.index[self.places if places is None else places, what])


def token_lengths(examples: Sequence[Example], roles: Sequence[str]) -> tuple[np.ndarray, list[np.ndarray]]:
    """(N,) tokens of the prompts, and of the answers role by role: out of the index of a store, else counted."""
    if isinstance(examples, ExampleStore):
        return examples.prompt_lengths, [examples.answer_lengths(role) for role in roles]
    prompts = np.array([len(example.prompt) for example in examples], dtype=np.int64)
    return prompts, [np.array([len(example.responses[role].ids) for example in examples], dtype=np.int64) for role in roles]


def collect(examples: Iterable[Example]) -> ExampleStore:
    """A store of examples that come one after the other, all with the same roles; columns that some of them lack are left out."""
    with ExitStack() as stack:
        records, index, columns = (_opened(stack) for _ in range(3))
        roles: tuple[str, ...] = ()
        names: dict[str, int] = {}
        everywhere: set[str] = set()
        seen: set[str] = set()
        start = count = 0
        for example in examples:
            if not count:
                roles, names = tuple(example.responses), {name: place for place, name in enumerate(example.columns)}
                everywhere = set(names)
            seen |= example.columns.keys()
            everywhere &= example.columns.keys()
            record, facts = _record(example, roles, start)
            _write(records, record)
            _write(index, struct.pack(f"<{len(facts)}q", *facts))
            _write(columns, struct.pack(f"<{len(names)}d", *(example.columns.get(name, float("nan")) for name in names)))
            start += len(record)
            count += 1
        files = _Files(
            _mapped(records, np.uint8),
            _mapped(index, np.int64).reshape(count, FIXED + PER_ROLE * len(roles)),
            _mapped(columns, np.float64).reshape(count, len(names)),
            roles,
            {name: place for name, place in names.items() if name in everywhere},
            tuple(sorted(seen - everywhere)),
        )
    return ExampleStore(files, np.arange(count))


def _opened(stack: ExitStack) -> IO[bytes]:
    try:
        file: IO[bytes] = tempfile.TemporaryFile(buffering=BUFFER, prefix="finegrain-")
    except OSError as error:
        raise _no_room(error) from error
    stack.callback(_close, file)
    return file


def _close(file: IO[bytes]) -> None:
    """A map outlives its file; what is left in the buffer of a full disk is of no use."""
    with suppress(OSError):
        file.close()


def _write(file: IO[bytes], data: bytes) -> None:
    try:
        file.write(data)
    except OSError as error:
        raise _no_room(error) from error


def _mapped(file: IO[bytes], dtype: Any) -> np.ndarray:
    """The whole file as an array; copy on write, for torch wants memory it could write to."""
    try:
        file.flush()
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if file.tell() else bytearray()
    except OSError as error:
        raise _no_room(error) from error
    return np.frombuffer(whole, dtype=dtype)


def _no_room(error: OSError) -> DataError:
    folder = tempfile.gettempdir()
    return DataError(f"cannot keep the tokenised rows in {folder}: {error.strerror or error}; set TMPDIR to a folder on a disk with room")


def _key(data: bytes) -> int:
    """Signed, as the index holds it."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big", signed=True)


def _record(example: Example, roles: tuple[str, ...], start: int) -> tuple[bytes, list[int]]:
    """An example as bytes, and its line of the index; what is wider stands first, so every array is aligned."""
    assert tuple(example.responses) == roles, (roles, tuple(example.responses))
    responses = [example.responses[role] for role in roles]
    spans = [example.spans[role] for role in roles]
    rewards = [example.token_rewards[role] for role in roles]
    prompt, prompt_text = _bytes(example.prompt, np.int32), example.prompt_text.encode("utf-8", "surrogatepass")
    texts = [response.text.encode("utf-8", "surrogatepass") for response in responses]
    parts = [
        prompt,
        *(_bytes(response.ids, np.int32) for response in responses),
        *(_bytes(values, np.float32) for values in rewards if values is not None),
        *(_bytes(response.offsets, _width(len(text))) for response, text in zip(responses, texts, strict=True)),
        *(_bytes(response.mask, np.bool_) for response in responses),
        *(SPAN.pack(*span) for own in spans for span in own or ()),
        prompt_text,
        *texts,
    ]
    facts = [start, example.row, len(example.prompt), len(prompt_text), _key(prompt), _key(prompt_text)]
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
        return None if count < 0 else list(SPAN.iter_unpack(self.array(count * SPAN.size, np.uint8, 1).tobytes()))


def _example(files: _Files, place: int) -> Example:
    facts = files.index[place].tolist()
    own = [facts[begin : begin + PER_ROLE] for begin in range(FIXED, len(facts), PER_ROLE)]
    read = _Reader(files.records, facts[START])
    prompt = read.array(facts[PROMPT], np.int32, 4)
    ids = [read.array(one[TOKENS], np.int32, 4) for one in own]
    rewards = [None if one[REWARDS] < 0 else read.array(one[REWARDS], np.float32, 4) for one in own]
    offsets = [_offsets(read, one) for one in own]
    masks = [read.array(one[TOKENS], np.bool_, 1) for one in own]
    spans = [read.spans(one[SPANS]) for one in own]
    prompt_text = read.text(facts[PROMPT_TEXT])
    texts = [read.text(one[TEXT]) for one in own]
    values = files.columns[place]
    return Example(
        row=facts[ROW],
        prompt=prompt,
        prompt_text=prompt_text,
        responses=dict(zip(files.roles, map(Response, ids, masks, offsets, texts), strict=True)),
        columns={name: float(values[column]) for name, column in files.names.items()},
        spans=dict(zip(files.roles, spans, strict=True)),
        token_rewards=dict(zip(files.roles, rewards, strict=True)),
    )


def _offsets(read: _Reader, own: list[int]) -> np.ndarray:
    dtype = _width(own[TEXT])
    return read.array(2 * own[TOKENS], dtype, np.dtype(dtype).itemsize).astype(np.int32).reshape(-1, 2)
