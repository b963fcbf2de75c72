"""Rows as dictionaries from a json, jsonl(.gz), csv or parquet file, a folder of them, or a set on the Hub.

A file that cannot be read, or a line that cannot be parsed, is a DataError that names file and line, raised when the reading
comes to it: rows are read one after the other and forgotten. Only a JSON list is whole in memory.
"""

import csv
import difflib
import gzip
import hashlib
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from finegrain.errors import DataError
from finegrain.types import Json

TEXT_SUFFIXES = (".jsonl", ".json", ".csv")
SUFFIXES = (*TEXT_SUFFIXES, *(f"{suffix}.gz" for suffix in TEXT_SUFFIXES), ".parquet")
HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?(:(?P<split>[\w.-]+))?")
PARTS = re.compile(r"(?<![a-z])(train|test|valid|validation|dev|eval)(?![a-z])")

Located = tuple[str, Json]
"""Where a row stands, for messages, and the row."""


@dataclass
class Source:
    """Rows to be read, and what identifies them."""

    name: str
    """As it was asked for."""
    files: list[str]
    """File names, or the Hub name."""
    stream: Callable[[], Iterator[Located]]
    """The rows from the first."""
    sha256: Callable[[], str]
    """Of the files' whole content (a folder: of names and hashes), whatever the limit; of a Hub set, of the rows that were read."""
    count: int = 0
    """Rows that the latest reading has given so far."""

    @property
    def rows(self) -> Iterator[Located]:
        """The rows one by one, from the first whenever it is asked for."""
        self.count = 0
        for row in self.stream():
            self.count += 1
            yield row
        if not self.count:
            raise DataError(f"{self.name} has no rows")


def read(source: str, limit: int | None = None) -> Source:
    """The rows of a file, a folder or a Hub name (`owner/set`, `owner/set:split`, `owner/set:config:split`), at most `limit`."""
    path = Path(source).expanduser()
    if path.is_dir():
        files = _folder(path)
    elif path.is_file():
        files = [path]
    elif (match := HUB_NAME.fullmatch(source)) and not source.endswith(SUFFIXES) and not path.parent.is_dir():
        return _hub(source, match["name"], match["config"], match["split"], limit)
    else:
        raise _missing(source, path)
    stream = lambda: islice((row for file in files for row in _file(file)), limit)
    return Source(source, [file.name for file in files], stream, lambda: _content(path, files))


def _content(path: Path, files: list[Path]) -> str:
    """SHA-256 of a file, or of names and hashes of a folder's files."""
    if not path.is_dir():
        return _sha256(path)
    joined = "\n".join(f"{file.relative_to(path).as_posix()} {_sha256(file)}" for file in files)
    return hashlib.sha256(joined.encode()).hexdigest()


def _missing(source: str, path: Path) -> DataError:
    folder = path.parent
    if not folder.is_dir():
        return DataError(f"no file {source}: there is no folder {folder} (a Hub name has the form owner/name)")
    known = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() or entry.name.endswith(SUFFIXES))
    near = difflib.get_close_matches(path.name, known, n=3, cutoff=0.5) or known[:5]
    hint = f"; near it: {', '.join(near)}" if near else f"; {folder} holds no {', '.join(SUFFIXES)} files"
    return DataError(f"no file {source}{hint}")


def _folder(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name.endswith(SUFFIXES))
    if not files:
        raise DataError(f"folder {folder} holds no {', '.join(SUFFIXES)} files")
    parts = {found for file in files for found in PARTS.findall(file.relative_to(folder).as_posix().lower())}
    if "train" in parts and len(parts) > 1:
        raise DataError(f"folder {folder} mixes {', '.join(sorted(parts))} files; pass the file (or folder) you want to read")
    return files


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error}") from error


def _file(file: Path) -> Iterator[Located]:
    name = file.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            yield from _parquet(file)
            return
        with _open(file) as stream:
            yield from _csv(file, stream) if name.endswith(".csv") else _json(file, stream)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {file}: {error}") from error


def _open(file: Path) -> io.TextIOWrapper:
    """Text with undecodable bytes kept as surrogates, so that the line that holds them can be named; line ends as they are."""
    raw: Any = gzip.open(file) if file.name.endswith(".gz") else file.open("rb")
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _check_utf8(text: str, where: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: not UTF-8") from error


def _json(file: Path, stream: io.TextIOWrapper) -> Iterator[Located]:
    """A list of objects, or one object per line (also under the name .json)."""
    whole = ""
    for number, line in enumerate(iter(stream.readline, ""), 1):
        where = f"{file}:{number}"
        _check_utf8(line, where)
        if not line.strip():
            continue
        if not whole and line.lstrip().startswith("["):
            whole = "\n" * (number - 1) + line + stream.read()
            _check_utf8(whole, str(file))
            break
        yield where, _object(_parse(line, where), where)
    if whole:
        for index, row in enumerate(_parse(whole, str(file))):
            yield f"{file} item {index}", _object(row, f"{file} item {index}")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text.rstrip())
    except ValueError as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) and error.lineno > 1 else ""
        raise DataError(f"{where}{line}: not JSON: {error}") from error


def _object(row: object, where: str) -> Json:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with named columns, found {type(row).__name__}")
    return row


@contextmanager
def _long_cells() -> Iterator[None]:
    """Cells of any length: the csv module's limit is process-wide and 128 kB by default."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv(file: Path, stream: io.TextIOWrapper) -> Iterator[Located]:
    """Cells are text; columns whose every filled cell is a number or a JSON list are read as such; an empty cell is absent.

    What a column is shows only at the end of the file, so it is read twice.
    """
    columns: dict[str, _Column] = {}
    for _, cells in _cells(file, stream):
        columns = columns or {name: _Column(name) for name in cells}
        for name, cell in cells.items():
            columns[name].note(cell)
    readers = {name: column.reader() for name, column in columns.items()}
    with _open(file) as again:
        for where, cells in _cells(file, again):
            yield where, {name: readers[name](cell) for name, cell in cells.items()}


def _cells(file: Path, stream: io.TextIOWrapper) -> Iterator[tuple[str, dict[str, str]]]:
    reader = csv.DictReader(stream, strict=True)
    while True:
        try:
            with _long_cells():
                row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{file}:{reader.line_num}: not CSV: {error}") from error
        where = f"{file}:{reader.line_num}"
        if None in row or None in row.values():
            raise DataError(f"{where}: expected {len(reader.fieldnames or ())} cells ({', '.join(reader.fieldnames or ())})")
        _check_utf8("".join(row.values()), where)
        yield where, row


TEXT_COLUMNS = frozenset({"prompt", "question", "chosen", "rejected", "answer", "response", "completion", "text"})
"""Columns of a CSV file that stay text even where every cell looks like a number."""
WORDS = {"true": True, "false": False}


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
        """One more cell."""
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
        except ValueError:
            return False
        self.turns = self.turns and all(isinstance(item, dict) for item in items)
        return True

    def reader(self) -> Callable[[str], Any]:
        """What reads a cell of this column."""
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


def _parquet(file: Path) -> Iterator[Located]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            number = 0
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield f"{file} row {number}", row
                    number += 1
    except pyarrow.ArrowException as error:
        raise DataError(f"cannot read {file}: {error}") from error


@dataclass
class _Table:
    """Rows of a set on the Hub; their hash grows as they are read."""

    name: str
    table: Iterable[Json]
    limit: int | None
    digest: Any = field(default_factory=hashlib.sha256)

    def stream(self) -> Iterator[Located]:
        """The rows from the first."""
        self.digest = hashlib.sha256()
        for number, taken in enumerate(islice(self.table, self.limit)):
            row = dict(taken)
            self.digest.update(json.dumps(row, sort_keys=True, default=str).encode())
            yield f"{self.name} row {number}", row

    def sha256(self) -> str:
        """Of the rows that were read."""
        return str(self.digest.hexdigest())


def _hub(source: str, name: str, config: str | None, split: str | None, limit: int | None) -> Source:
    """`owner/set:split` where only one word follows the name. Code that comes with a set is never run."""
    import datasets

    if split is None:
        config, split = None, config or "train"
    try:
        table = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the client raises a dozen unrelated types: connection, missing set, missing split, bad file
        raise DataError(f"cannot load {name} (config {config or 'default'}, split {split}) from the Hub: {error}") from error
    rows = _Table(name, table, limit)
    return Source(source, [":".join(part for part in (name, config, split) if part)], rows.stream, rows.sha256)
