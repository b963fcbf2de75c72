"""Rows as dictionaries from a json, jsonl(.gz), csv or parquet file, a folder of them, or a set on the Hub.

A file that cannot be read, or a line that cannot be parsed, is a DataError that names file and line.
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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Source:
    """Rows that were read, and what identifies them."""

    rows: list[Located]
    files: list[str]
    """File names, or the Hub name."""
    sha256: str
    """Of the files' whole content (a folder: of names and hashes; the Hub: of the rows), whatever the limit."""


def read(source: str, limit: int | None = None) -> Source:
    """The rows of a file, a folder or a Hub name (`owner/set`, `owner/set:split`, `owner/set:config:split`), at most `limit`."""
    path = Path(source).expanduser()
    if path.is_dir():
        files = _folder(path)
    elif path.is_file():
        files = [path]
    elif (match := HUB_NAME.fullmatch(source)) and not source.endswith(SUFFIXES) and not path.parent.is_dir():
        return _hub(match["name"], match["config"], match["split"], limit)
    else:
        raise _missing(source, path)
    rows = list(islice((row for file in files for row in _file(file)), limit))
    if not rows:
        raise DataError(f"{source} has no rows")
    hashes = [_sha256(file) for file in files]
    joined = "\n".join(f"{file.relative_to(path).as_posix()} {digest}" for file, digest in zip(files, hashes, strict=True)) if path.is_dir() else ""
    return Source(rows, [file.name for file in files], hashlib.sha256(joined.encode()).hexdigest() if joined else hashes[0])


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
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    if not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
        raise DataError(f"{where}: not UTF-8")


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
    """Cells are text; columns whose every filled cell is a number or a JSON list are read as such; an empty cell is absent."""
    lines, rows = [], []
    with _long_cells():
        reader = csv.DictReader(stream, strict=True)
        try:
            for row in reader:
                where = f"{file}:{reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(f"{where}: expected {len(reader.fieldnames or ())} cells ({', '.join(reader.fieldnames or ())})")
                _check_utf8("".join(row.values()), where)
                lines.append(where)
                rows.append(row)
        except csv.Error as error:
            raise DataError(f"{file}:{reader.line_num}: not CSV: {error}") from error
    names = list(reader.fieldnames or ())
    columns = {name: _csv_column(name, [row[name] for row in rows]) for name in names}
    for index, where in enumerate(lines):
        yield where, {name: columns[name][index] for name in names}


TEXT_COLUMNS = frozenset({"prompt", "question", "chosen", "rejected", "answer", "response", "completion", "text"})
"""Columns of a CSV file that stay text even where every cell looks like a number."""


def _csv_column(name: str, cells: list[str]) -> list[Any]:
    filled = [cell for cell in cells if cell]
    if filled and all(cell.startswith("[") for cell in filled):
        try:
            values = [json.loads(cell) if cell else None for cell in cells]
        except ValueError:
            return list(cells)
        turns = all(isinstance(item, dict) for value in values if value for item in value)
        return list(cells) if name in TEXT_COLUMNS and not turns else values
    if name in TEXT_COLUMNS:
        return list(cells)
    words = {"true": True, "false": False}
    try:
        return [None if not cell else words[cell.lower()] if cell.lower() in words else float(cell) for cell in cells]
    except ValueError:
        return list(cells)


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


def _hub(name: str, config: str | None, split: str | None, limit: int | None) -> Source:
    """`owner/set:split` where only one word follows the name. Code that comes with a set is never run."""
    import datasets

    if split is None:
        config, split = None, config or "train"
    try:
        table = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the client raises a dozen unrelated types: connection, missing set, missing split, bad file
        raise DataError(f"cannot load {name} (config {config or 'default'}, split {split}) from the Hub: {error}") from error
    taken: Iterable[Json] = table if limit is None else islice(table, limit)
    rows = [(f"{name} row {number}", dict(row)) for number, row in enumerate(taken)]
    if not rows:
        raise DataError(f"{name} has no rows in split {split}")
    digest = hashlib.sha256()
    for _, row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return Source(rows, [":".join(part for part in (name, config, split) if part)], digest.hexdigest())
