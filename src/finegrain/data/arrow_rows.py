"""Rows of Arrow tables (parquet and arrow files, saved data sets): a column is converted on first access, a bad cell by itself."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, final

import pyarrow  # type: ignore[import-untyped]
from pyarrow import compute, ipc, parquet, types

from finegrain.data.source_rows import BadCell, SourceRow
from finegrain.errors import DataError

UNREADABLE = (ValueError, OverflowError, TypeError, KeyError, pyarrow.ArrowException)
"""What the conversion of a cell raises: invalid UTF-8, a year after 9999, an unknown time zone ..."""
ROWS = 1024


class _Batch:
    """Some rows, by column."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        names = batch.schema.names
        self.places = {name: place for place, name in enumerate(names)}
        self.repeated = tuple(name for name in self.places if names.count(name) > 1)
        self._cells: dict[str, list[Any]] = {}
        self._filled: dict[str, list[bool]] = {}

    def cells(self, name: str) -> list[Any]:
        """The column as Python values."""
        if name not in self._cells:
            array = self._batch.column(self.places[name])
            try:
                self._cells[name] = array.to_pylist()
            except UNREADABLE:
                self._cells[name] = [_cell(one) for one in array]
        return self._cells[name]

    def filled(self, name: str) -> list[bool]:
        """Which cells of a column hold a value; nothing is converted for this."""
        if name not in self._filled:
            array = self._batch.column(self.places[name])
            mask = array.is_valid()
            lengths = _lengths(array)
            self._filled[name] = (mask if lengths is None else compute.and_(mask, compute.greater(compute.fill_null(lengths, 0), 0))).to_pylist()
        return self._filled[name]

    @cached_property
    def numeric(self) -> tuple[str, ...]:
        """Columns of numbers and booleans."""
        kinds = {name: self._batch.schema.field(place).type for name, place in self.places.items()}
        return tuple(name for name, kind in kinds.items() if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _lengths(array: Any) -> Any:
    """Lengths of texts and lists; None for other columns."""
    kind = array.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return compute.binary_length(array)
    return compute.list_value_length(array) if types.is_list(kind) or types.is_large_list(kind) else None


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return BadCell("encoding", "text that is not UTF-8")
    except UNREADABLE as error:
        return BadCell("missing_column", f"a value of type {scalar.type} that cannot be read ({str(error)[:100]})")


@final
class ArrowRow(SourceRow):
    """One row of a batch."""

    def __init__(self, batch: _Batch, place: int) -> None:
        self._batch, self._place = batch, place

    def __getitem__(self, name: str) -> Any:
        if name not in self._batch.places:
            raise KeyError(name)
        cell = self._batch.cells(name)[self._place]
        return None if isinstance(cell, BadCell) else cell

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch.places)

    def __len__(self) -> int:
        return len(self._batch.places)

    def __contains__(self, name: object) -> bool:
        return name in self._batch.places

    @property
    def repeated(self) -> tuple[str, ...]:
        """Columns that the table has more than once."""
        return self._batch.repeated

    def fault(self, name: str) -> BadCell | None:
        """Why a cell cannot be read."""
        cell = self._batch.cells(name)[self._place] if name in self._batch.places else None
        return cell if isinstance(cell, BadCell) else None

    def holds(self, name: str) -> bool:
        """Whether a cell holds anything."""
        return self._batch.filled(name)[self._place]

    def numeric(self) -> Iterator[str]:
        """Columns of numbers whose cell is not null."""
        return (name for name in self._batch.numeric if self.holds(name))


def read_arrow_rows(file: Path) -> Iterator[ArrowRow]:
    """The rows of a parquet or arrow file; raises DataError."""
    try:
        yield from _rows(_parquet(file) if file.name.endswith(".parquet") else _ipc(file))
    except pyarrow.ArrowException as error:
        raise DataError(f"cannot read {file}: {error}") from error


def _parquet(file: Path) -> Iterator[Any]:
    with parquet.ParquetFile(file) as table:
        yield from table.iter_batches(batch_size=ROWS)


def _ipc(file: Path) -> Iterator[Any]:
    """Both variants of Arrow's own format: the file, and the stream that datasets writes."""
    with pyarrow.memory_map(str(file)) as source:
        try:
            reader = ipc.open_file(source)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            yield from map(_sound, ipc.open_stream(source))
        else:
            yield from (_sound(reader.get_batch(number)) for number in range(reader.num_record_batches))


def _sound(batch: Any) -> Any:
    """The batch, with its offsets checked: Arrow's own format has no checksums, and reading beyond a memory map ends the process."""
    for array in batch.columns:
        bytes_of = {pyarrow.string(): pyarrow.binary(), pyarrow.large_string(): pyarrow.large_binary()}.get(array.type)
        array.validate()
        try:
            (array if bytes_of is None else array.view(bytes_of)).validate(full=True)
        except pyarrow.ArrowInvalid as error:
            if "UTF8" not in str(error):  # in a list of texts; reported with its row
                raise
    return batch


def read_saved_rows(folder: Path) -> Iterator[ArrowRow]:
    """The rows of a folder written by `datasets`, of the split `train` where there are several; raises DataError."""
    import datasets

    try:
        table = datasets.load_from_disk(str(folder))
    except (OSError, *UNREADABLE) as error:
        raise DataError(f"cannot read {folder}, a folder that datasets' save_to_disk wrote: {error}") from error
    if isinstance(table, datasets.DatasetDict):
        if "train" not in table and len(table) != 1:
            raise DataError(f"folder {folder} has the splits {', '.join(table)} but no split named train; pass the folder of the split to read")
        table = table["train"] if "train" in table else next(iter(table.values()))
    for part in table.with_format("arrow").iter(batch_size=ROWS):
        yield from _rows(part.to_batches())


def _rows(batches: Any) -> Iterator[ArrowRow]:
    for batch in batches:
        shared = _Batch(batch)
        yield from (ArrowRow(shared, place) for place in range(batch.num_rows))
