"""Tokenised rows on disk: memory holds only an index of their lengths, so a million rows are cheap.

Rows are appended to unnamed files and read through a memory map; a view of some rows shares the files of all.
"""

import operator
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, overload

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from finegrain.data.record_bytes import (
    FIXED,
    IDS_KEY,
    NO_ANSWER,
    PER_ROLE,
    PROMPT,
    REWARDS,
    ROW,
    SPANS,
    TEXT_KEY,
    TOKENS,
    TRAINED,
    pack_example,
    unpack_example,
)
from finegrain.data.records import Example, Response
from finegrain.data.scratch import map_file, open_scratch, write
from finegrain.data.source_text import lend_answer

NOTHING = (np.zeros(0, dtype=np.int32), np.zeros(0, dtype=bool), np.zeros((0, 2), dtype=np.int32))
"""Tokens, mask and offsets of an answer without tokens."""


@dataclass(frozen=True, eq=False)
class _Files:
    """The arrays behind every view of a store."""

    records: np.ndarray
    """(bytes,) uint8, one record after the other: see `record_bytes`."""
    index: np.ndarray
    """(N, FIXED + PER_ROLE * roles) int64."""
    columns: np.ndarray
    """(N, C) float64."""
    roles: tuple[str, ...]
    names: Mapping[str, int]
    """Columns that every row has, by place."""
    partial: tuple[str, ...]
    """Names of columns that some rows lack; their values are not kept."""

    def example(self, place: int) -> Example:
        """The row at this place; a number that belongs to an answer which the row lacks is not among its columns."""
        values = self.columns[place]
        columns = {name: float(values[column]) for name, column in self.names.items()}
        example = unpack_example(self.records, self.index[place].tolist(), self.roles, columns)
        if len(example.responses) < len(self.roles):
            lacking = self.roles[len(example.responses) :]
            example = replace(example, columns={name: value for name, value in columns.items() if name.rpartition("/")[2] not in lacking})
        return example


class Borrowed(NamedTuple):
    """An answer that is used for a further role."""

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
    filled: tuple[str, ...] = ()
    """Roles that every row has, as an answer without tokens where it lacks one: of ranked answers, whose number differs."""

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
        example = self.files.example(int(self.places[place]))
        for role, lent in self.borrowed.items():
            other = self.files.example(int(lent.rows[place]))
            example.responses[role] = other.responses[lent.role]
            example = replace(example, source=lend_answer(example.source, other.source, lent.role, role))
        for role in self.filled:
            if role not in example.responses:
                example.responses[role] = Response(NOTHING[0], NOTHING[1], NOTHING[2], "")
                example.spans[role] = example.token_rewards[role] = None
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

    def fill(self, roles: tuple[str, ...]) -> "ExampleStore":
        """The view in which every row has all these roles, some without tokens."""
        return replace(self, filled=roles)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the rows, without borrowed ones; of ranked answers those of the longest row."""
        return self.files.roles

    @property
    def columns(self) -> list[str]:
        """Names of the columns, sorted."""
        return sorted(self.files.names)

    @property
    def row_numbers(self) -> Int64[np.ndarray, " N"]:
        """Numbers of the rows in their source."""
        return self._fact(ROW)

    @property
    def prompt_lengths(self) -> Int64[np.ndarray, " N"]:
        """Tokens of the prompts."""
        return self._fact(PROMPT)

    @property
    def prompt_keys(self) -> UInt64[np.ndarray, " N"]:
        """The first eight bytes of the SHA-256 of the prompts' tokens, as a number that sorts like the hashes."""
        return self._fact(IDS_KEY).view(np.uint64)

    @property
    def prompt_text_keys(self) -> UInt64[np.ndarray, " N"]:
        """The same for the prompts' texts."""
        return self._fact(TEXT_KEY).view(np.uint64)

    def column(self, name: str) -> Float64[np.ndarray, " N"]:
        """The numbers of a column that every row has."""
        return np.array(self.files.columns[self.places, self.files.names[name]])

    def answer_lengths(self, role: str) -> Int64[np.ndarray, " N"]:
        """Tokens of the answers."""
        return self._of_role(TOKENS, role)

    def trained_lengths(self, role: str) -> Int64[np.ndarray, " N"]:
        """Number of tokens of the answers that train."""
        return self._of_role(TRAINED, role)

    def annotated(self, role: str) -> int:
        """Number of answers with spans, including empty lists."""
        return int((self._of_role(SPANS, role) >= 0).sum())

    def rewarded(self, role: str) -> int:
        """Number of answers with token rewards."""
        return int((self._of_role(REWARDS, role) >= 0).sum())

    def _of_role(self, what: int, role: str) -> Int64[np.ndarray, " N"]:
        lent = self.borrowed.get(role, Borrowed(role, self.places))
        if lent.role in self.filled and lent.role not in self.files.roles:
            return np.full(len(self), NO_ANSWER[what], dtype=np.int64)
        return self._fact(FIXED + PER_ROLE * self.files.roles.index(lent.role) + what, lent.rows)

    def _fact(self, what: int, places: np.ndarray | None = None) -> Int64[np.ndarray, " N"]:
        return np.ascontiguousarray(self.files.index[self.places if places is None else places, what])


def token_lengths(examples: Sequence[Example], roles: Sequence[str]) -> tuple[np.ndarray, list[np.ndarray]]:
    """(N,) tokens of the prompts, and of the answers by role: from the index of a store, else counted."""
    if isinstance(examples, ExampleStore):
        return examples.prompt_lengths, [examples.answer_lengths(role) for role in roles]
    prompts = np.array([len(example.prompt) for example in examples], dtype=np.int64)
    return prompts, [np.array([len(example.responses[role].ids) for example in examples], dtype=np.int64) for role in roles]


def longest_row(examples: Sequence[Example], roles: Sequence[str]) -> int:
    """Tokens of the longest prompt with one answer; 0 without examples."""
    prompts, answers = token_lengths(examples, roles)
    return int(np.max(prompts + np.max(answers, axis=0), initial=0))


def collect(examples: Iterable[Example]) -> ExampleStore:
    """A store of examples from an iterator; columns that some of them lack are left out.

    All have the same roles, except ranked answers: there a row has the first few of the roles of the longest one, and columns `…/<role>` are
    those of its own answers.
    """
    with ExitStack() as stack:
        records = open_scratch(stack)
        index, columns = _Table(stack, "q", FIXED), _Table(stack, "d", 0)
        roles: tuple[str, ...] = ()
        names: dict[str, int] = {}
        told = _Told()
        start = 0
        for example in examples:
            own = tuple(example.responses)
            if len(own) > len(roles):
                assert own[: len(roles)] == roles, (roles, own)
                names |= {name: len(names) + place for place, name in enumerate(told.new(example, own[len(roles) :]))}
                roles = own
                index.widen(NO_ANSWER, FIXED + PER_ROLE * len(roles))
                columns.widen((float("nan"),), len(names))
            assert own == roles[: len(own)], (roles, own)
            told.look(example, roles[len(own) :])
            record, facts = pack_example(example, own, start)
            write(records, record)
            index.add([*facts, *NO_ANSWER * (len(roles) - len(own))])
            columns.add([example.columns.get(name, float("nan")) for name in names])
            start += len(record)
        missing = told.partial()
        files = _Files(
            map_file(records, np.uint8),
            index.map(np.int64),
            columns.map(np.float64),
            roles,
            {name: place for name, place in names.items() if name not in missing},
            tuple(sorted(missing)),
        )
    return ExampleStore(files, np.arange(index.count))


class _Told:
    """Which columns all rows have."""

    def __init__(self) -> None:
        self._everywhere: set[str] | None = None
        self._seen: set[str] = set()
        self._later: set[str] = set()

    def new(self, example: Example, roles: Sequence[str]) -> list[str]:
        """The columns of the first row, or those that come with further answers."""
        if self._everywhere is None:
            self._everywhere = set(example.columns)
            return list(example.columns)
        later = [name for name in example.columns if name.rpartition("/")[2] in roles]
        self._everywhere |= set(later)
        return later

    def look(self, example: Example, lacking: Sequence[str]) -> None:
        """Counts a row that lacks some answers, and their columns with them."""
        assert self._everywhere is not None
        here = example.columns.keys()
        if here == self._everywhere == self._seen:
            return
        self._seen |= here
        self._everywhere = {name for name in self._everywhere if name in here or name.rpartition("/")[2] in lacking}

    def partial(self) -> set[str]:
        """Columns that a row lacks though it has the answers."""
        return self._seen - (self._everywhere or set())


class _Table:
    """Rows of numbers in a file; a longer row makes the earlier ones longer too."""

    def __init__(self, stack: ExitStack, code: str, width: int) -> None:
        self._stack, self._code, self._width = stack, code, width
        self._file = open_scratch(stack)
        self.count = 0

    def add(self, row: Sequence[float | int]) -> None:
        """Adds a row of the table's width."""
        write(self._file, struct.pack(f"<{self._width}{self._code}", *row))
        self.count += 1

    def widen(self, fill: Sequence[float | int], width: int) -> None:
        """Makes every row as wide as this, with `fill` repeated at its end."""
        if self.count and width > self._width:
            old, self._file = self.map(np.dtype("<i8" if self._code == "q" else "<f8")), open_scratch(self._stack)
            more = np.tile(np.array(fill, old.dtype), (width - self._width) // len(fill))
            for row in old:
                write(self._file, np.concatenate([row, more]).tobytes())
        self._width = width

    def map(self, dtype: Any) -> np.ndarray:
        """The rows, (N, width)."""
        return map_file(self._file, dtype).reshape(self.count, self._width)
