"""Rows of a CSV file: cells are text, numbers or JSON lists, depending on all filled cells of their column."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.data.columns import list_names
from finegrain.data.records import Located
from finegrain.data.source_rows import PlainRow
from finegrain.data.text_file import open_text
from finegrain.errors import DataError

TEXT_COLUMNS = frozenset(
    {"prompt", "question", "instruction", "query", "input", "context", "system", "system_prompt"}
    | {"chosen", "rejected", "answer", "response", "completion", "output", "rejected_response", "text"}
)
"""Columns of a CSV file that stay text even where every cell looks like a number."""
WORDS = {"true": True, "false": False}


def read_csv_rows(file: Path, stream: io.TextIOWrapper, separator: str = ",") -> Iterator[Located]:
    """Cells are text; columns whose filled cells are all numbers or all JSON lists are read as such; an empty cell is absent.

    The type of a column is known only at the end of the file, so the file is read twice.
    """
    columns: dict[str, _Column] = {}
    for _, cells, _ in _cells(file, stream, separator):
        columns = columns or {name: _Column(name) for name in cells}
        for name, cell in cells.items():
            columns[name].note(cell)
    readers = {name: column.reader() for name, column in columns.items()}
    with open_text(file) as again:
        for where, cells, repeated in _cells(file, again, separator):
            yield where, PlainRow({name: readers[name](cell) for name, cell in cells.items()}, repeated)


def _cells(file: Path, stream: io.TextIOWrapper, separator: str) -> Iterator[tuple[str, dict[str, str], tuple[str, ...]]]:
    """The location of a row, its cells, and the columns that occur more than once in the header."""
    reader = csv.DictReader(stream, strict=True, delimiter=separator)
    while True:
        try:
            with _long_cells():
                row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{file}:{reader.line_num}: not CSV: {error}") from error
        where = f"{file}:{reader.line_num}"
        names = list(reader.fieldnames or ())
        if None in row or None in row.values():
            raise DataError(f"{where}: expected {len(names)} cells ({list_names(names)})")
        yield where, row, tuple(name for name in row if names.count(name) > 1)


@contextmanager
def _long_cells() -> Iterator[None]:
    """Allows cells of any length: the csv module's limit is process-wide and 128 kB by default."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


@dataclass
class _Column:
    """What the cells of a column have in common."""

    name: str
    filled: bool = False
    lists: bool = True
    """Every filled cell is a JSON list."""
    turns: bool = True
    """Every item of these lists is an object."""
    numbers: bool = True
    """Every filled cell is a number, true or false."""

    def note(self, cell: str) -> None:
        """Records one more cell."""
        if not cell:
            return
        self.filled = True
        if self.lists:
            self.lists = cell.startswith("[") and self._is_list(cell)
        if self.numbers:
            self.numbers = cell.lower() in WORDS or _is_number(cell)

    def _is_list(self, cell: str) -> bool:
        try:
            items = json.loads(cell)
        except (ValueError, RecursionError):
            return False
        self.turns = self.turns and all(isinstance(item, dict) for item in items)
        return True

    def reader(self) -> Callable[[str], Any]:
        """The function that reads a cell of this column."""
        if self.filled and self.lists and (self.turns or self.name not in TEXT_COLUMNS):
            return lambda cell: json.loads(cell) if cell else None
        if self.name in TEXT_COLUMNS or not self.numbers:
            return str
        return lambda cell: (WORDS[cell.lower()] if cell.lower() in WORDS else float(cell)) if cell else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
