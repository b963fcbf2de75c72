"""The origin of rows of several sources: the source of each, and its number there."""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np


class Places:
    """Two bytes per row that was read."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._parts: array[int] = array("H")

    def clear(self) -> None:
        """Resets before the rows are read again."""
        self._parts = array("H")

    def add(self, part: int) -> None:
        """Records the source of the next row."""
        self._parts.append(part)

    def part(self, row: int) -> int:
        """The source of a row that was read."""
        return self._parts[row]

    def counts(self) -> list[int]:
        """Rows by source."""
        found: list[int] = np.bincount(np.array(self._parts, np.int64), minlength=len(self.names)).tolist()
        return found

    def split(self, rows: Iterable[int]) -> list[list[int]]:
        """By source, the numbers that these rows have in it."""
        parts, wanted = np.array(self._parts), np.fromiter(rows, np.int64)
        found = []
        for part in range(len(self.names)):
            own = np.flatnonzero(parts == part)
            found.append(np.searchsorted(own, wanted[parts[wanted] == part]).tolist())
        return found
