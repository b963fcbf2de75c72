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

from finegrain.data.record_bytes import FIXED, IDS_KEY, PER_ROLE, PROMPT, REWARDS, ROW, SPANS, TEXT_KEY, TOKENS, TRAINED, pack_example, unpack_example
from finegrain.data.records import Example
from finegrain.data.scratch import map_file, open_scratch, write
from finegrain.data.source_text import lend_answer


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
        """The row at this place."""
        values = self.columns[place]
        columns = {name: float(values[column]) for name, column in self.names.items()}
        return unpack_example(self.records, self.index[place].tolist(), self.roles, columns)


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
        """Roles of every row, without borrowed ones."""
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
    """A store of examples from an iterator, all with the same roles; columns that some of them lack are left out."""
    with ExitStack() as stack:
        records, index, columns = (open_scratch(stack) for _ in range(3))
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
            record, facts = pack_example(example, roles, start)
            write(records, record)
            write(index, struct.pack(f"<{len(facts)}q", *facts))
            write(columns, struct.pack(f"<{len(names)}d", *(example.columns.get(name, float("nan")) for name in names)))
            start += len(record)
            count += 1
        files = _Files(
            map_file(records, np.uint8),
            map_file(index, np.int64).reshape(count, FIXED + PER_ROLE * len(roles)),
            map_file(columns, np.float64).reshape(count, len(names)),
            roles,
            {name: place for name, place in names.items() if name in everywhere},
            tuple(sorted(seen - everywhere)),
        )
    return ExampleStore(files, np.arange(count))
