"""Rows of a file with the examples they give: for benchmarks, which read names and texts and must not lose a row."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from finegrain.data.findings import Findings
from finegrain.data.formats import Format
from finegrain.data.gate.keeper import FIRST_ROWS, convert, find_common_format
from finegrain.data.left_out import LeftOut
from finegrain.data.read import read
from finegrain.data.records import Located, Row, Shape
from finegrain.data.shapes import find_own_shape
from finegrain.errors import DataError


class Question(NamedTuple):
    """One example, and the row it was made from."""

    row: int
    """Row number in the source, from 0."""
    raw: Mapping[str, Any]
    made: Row


class Questions:
    """The examples of a source, read again on every call; rows that give none are counted in the findings."""

    def __init__(self, source: str, limit: int | None) -> None:
        self.source, self._limit = source, limit
        self.format: Format = find_common_format(list(islice(read(source, limit).rows, FIRST_ROWS)))
        self.shape = find_own_shape(self.format)
        """What the rows serve of themselves."""
        self.findings = Findings()
        self.rows = 0

    def __call__(self, shape: Shape | None = None) -> Iterator[Question]:
        """Examples in the order of the data, in the rows' own shape or in another one."""
        self.findings, self.rows = Findings(), 0
        for number, (where, raw) in enumerate(self.raw()):
            self.rows += 1
            try:
                made = convert(self.format, shape or self.shape, raw)
            except DataError as error:
                self.findings.drop("unreadable", number, f"{where}: {error}")
                continue
            for one in made:
                if isinstance(one, LeftOut):
                    self.findings.drop(one.value, number)
                else:
                    yield Question(number, raw, one)

    def raw(self) -> Iterator[Located]:
        """The rows, unchanged."""
        return read(self.source, self._limit).rows


def read_identifiers(source: str, column: str, limit: int | None) -> Iterator[tuple[int, str]]:
    """Row number and the value of an identifier column, which must be text or a number in every row."""
    for number, (where, raw) in enumerate(read(source, limit).rows):
        value = raw.get(column)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise DataError(
                f"{where}: --id {column}: expected text or a number in every row, found {value!r}; the row has the columns {', '.join(raw)}"
            )
        yield number, str(value)
