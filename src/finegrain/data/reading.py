"""A row as a converter reads it: conversations in one form whatever the file's form, and a record of the columns that were read."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, final

from finegrain.data.messages import parse_messages, to_messages
from finegrain.data.source_rows import CellError, PlainRow, SourceRow

AS_TEXT = "conversation_as_text"
TRUTH = "_truth"
"""Suffix of the name of a column that no method reads: the planted truth, which the report shows."""

READ = frozenset(
    {"label", "weight", "margin", "label_prob", "tie", "flip", "strength", "strength_mean", "strength_std", "member_margins"}
    | {"is_chosen_safe", "is_rejected_safe", "chosen_start", "rejected_start"}
)
"""Numeric columns that methods read by name."""


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


@final
class Reading(Mapping[str, Any]):
    """The cells of one row; `[]` and `get` read a cell, iteration and `in` do not."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.source: SourceRow = row if isinstance(row, SourceRow) else PlainRow(row)
        self._cells: dict[str, Any] = {}
        self.notes: dict[str, str] = {}
        """What was done with cells: kind of finding and description."""
        self.unfit: dict[str, str] = {}
        """Non-finite numbers in columns that no method reads: descriptions by column. The row is used without them."""
        self.ignored: list[str] = []
        """Parts of cells that hold something and were not read: predictions, other kinds of annotation."""
        self.used = False
        """Whether an example was made from the row; if not, its unread columns are not reported."""

    def check(self) -> None:
        """Raises the error of a row that is not an object because it cannot be read."""
        if "" in self.source and (fault := self.source.fault("")):
            raise CellError(fault.kind, fault.words)

    def __getitem__(self, name: str) -> Any:
        if name not in self._cells:
            if fault := self.source.fault(name):
                raise CellError(fault.kind, f"column {name!r}: {fault.words}")
            self._cells[name] = self._plain(name, self.source[name])
        return self._cells[name]

    def _plain(self, name: str, cell: Any) -> Any:
        if isinstance(cell, str):
            messages = parse_messages(cell, name)
            if messages is not None:
                self.notes[AS_TEXT] = f"column {name!r}"
            return cell if messages is None else messages
        messages = to_messages(cell)
        return cell if messages is None else messages

    def __iter__(self) -> Iterator[str]:
        return iter(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def __contains__(self, name: object) -> bool:
        return name in self.source

    def numbers(self) -> dict[str, Any]:
        """Every column that is a number or a boolean; they are kept with the row, so they count as read.

        Numbers that are not finite are left out (`unfit`), unless a converter or a method reads the column.
        """
        found = {}
        for name in self.source.numeric():
            if name in READ or name in self._cells:
                found[name] = self[name]
            elif fault := self.source.fault(name):
                self.unfit[name] = f"column {name!r}: {fault.words}; left out, no method reads it"
            elif _is_finite(value := self.source[name]):
                found[name] = self[name]
            else:
                self.unfit[name] = f"column {name!r} is {value!s:.40}; left out, no method reads it"
        return found

    def seen(self) -> Iterator[tuple[str, Any]]:
        """The cells that were read."""
        return iter(self._cells.items())

    def unread(self) -> list[str]:
        """Columns that hold a value and that were never read."""
        told = self._cells.keys() | self.unfit.keys()
        return [name for name in self.source if name not in told and not name.endswith(TRUTH) and self.source.holds(name)]
