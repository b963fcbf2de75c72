"""A row as in its file: cells by column, some of which cannot be read, and repeated columns."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any, NamedTuple, final

from finegrain.errors import DataError


class CellError(DataError):
    """A cell that cannot be read, with its kind of finding."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind
        """missing_column, not_a_number or encoding."""


class BadCell(NamedTuple):
    """Placeholder of a cell that cannot be read."""

    kind: str
    words: str


class SourceRow(Mapping[str, Any]):
    """Cells by column; None for a cell that cannot be read, for which `fault` gives the reason."""

    @property
    @abstractmethod
    def repeated(self) -> tuple[str, ...]:
        """Columns that the row has more than once; the last one counts."""

    @abstractmethod
    def fault(self, name: str) -> BadCell | None:
        """Why a cell cannot be read."""

    @abstractmethod
    def holds(self, name: str) -> bool:
        """Whether a cell holds anything."""

    @abstractmethod
    def numeric(self) -> Iterator[str]:
        """Columns that are numbers or booleans in this row."""


@final
class PlainRow(SourceRow):
    """A row whose cells are all read."""

    def __init__(self, cells: Mapping[str, Any], repeated: tuple[str, ...] = ()) -> None:
        self._cells, self._repeated = cells, repeated

    def __getitem__(self, name: str) -> Any:
        cell = self._cells[name]
        return None if isinstance(cell, BadCell) else cell

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __contains__(self, name: object) -> bool:
        return name in self._cells

    @property
    def repeated(self) -> tuple[str, ...]:
        """Keys that the object has more than once."""
        return self._repeated

    def fault(self, name: str) -> BadCell | None:
        """Why a cell cannot be read."""
        cell = self._cells.get(name)
        return cell if isinstance(cell, BadCell) else None

    def holds(self, name: str) -> bool:
        """Whether a cell holds anything but an empty text, list or object."""
        return _holds(self._cells[name])

    def numeric(self) -> Iterator[str]:
        """Columns that are numbers or booleans."""
        return (name for name, cell in self._cells.items() if isinstance(cell, Real))


def _holds(value: Any) -> bool:
    if isinstance(value, BadCell):
        return True
    if isinstance(value, Mapping):
        return any(map(_holds, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds, value))
    return value is not None and value == value and value != ""
