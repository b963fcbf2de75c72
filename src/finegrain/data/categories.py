"""Text columns that a method reads as numbers: every text of a column gets the number of its first appearance."""

from collections.abc import Iterable
from typing import Any

from finegrain.data.reading import Reading


class Categories:
    """The texts of some columns; a run keeps one for all its files, so that a text has one number."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._numbers: dict[str, dict[str, int]] = {name: {} for name in names}

    def read(self, row: Reading) -> dict[str, float]:
        """Numbers of the row's texts by column; a column without a text or a number is left out."""
        texts = {name: text for name in self._numbers if name in row and (text := _text(row[name])) is not None}
        return {name: float(self._numbers[name].setdefault(text, len(self._numbers[name]))) for name, text in texts.items()}

    def counts(self) -> dict[str, int]:
        """Number of texts by column."""
        return {name: len(own) for name, own in self._numbers.items()}

    def as_json(self) -> dict[str, list[str]]:
        """By column, its texts in the order of their numbers."""
        return {name: list(own) for name, own in self._numbers.items()}


def _text(value: Any) -> str | None:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str | int) else None
