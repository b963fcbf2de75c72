"""Rows of one file, by its name: json and jsonl (a list of objects, or one a line), csv, each also .gz, and parquet."""

import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finegrain.data.csv_rows import csv_rows
from finegrain.data.records import Located
from finegrain.data.text_file import check_utf8, open_text
from finegrain.errors import DataError
from finegrain.types import Json

TEXT_SUFFIXES = (".jsonl", ".json", ".csv")
SUFFIXES = (*TEXT_SUFFIXES, *(f"{suffix}.gz" for suffix in TEXT_SUFFIXES), ".parquet")


def file_rows(file: Path) -> Iterator[Located]:
    """The rows one by one; only a JSON list is whole in memory."""
    name = file.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            yield from _parquet(file)
            return
        with open_text(file) as stream:
            yield from csv_rows(file, stream) if name.endswith(".csv") else _json(file, stream)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {file}: {error}") from error


def _json(file: Path, stream: io.TextIOWrapper) -> Iterator[Located]:
    """A list of objects, or one object per line (also under the name .json)."""
    whole = ""
    for number, line in enumerate(iter(stream.readline, ""), 1):
        where = f"{file}:{number}"
        check_utf8(line, where)
        if not line.strip():
            continue
        if not whole and line.lstrip().startswith("["):
            whole = "\n" * (number - 1) + line + stream.read()
            check_utf8(whole, str(file))
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
