"""Rows of one file, by its suffix: json and jsonl (objects, a table, or one object a line), csv, tsv, parquet, arrow; text also .gz and .zst."""

import io
import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from finegrain.data.arrow_rows import read_arrow_rows
from finegrain.data.csv_rows import read_csv_rows
from finegrain.data.json_text import Repeated, parse_json
from finegrain.data.messages import to_messages
from finegrain.data.records import Located
from finegrain.data.source_rows import BadCell, PlainRow
from finegrain.data.text_file import PACKED, is_utf8, open_text, strip_compression
from finegrain.errors import DataError
from finegrain.types import Json

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
ARROW_SUFFIXES = (".parquet", ".arrow")
SUFFIXES = (*(f"{suffix}{packed}" for packed in PACKED for suffix in (*JSON_SUFFIXES, *SEPARATORS)), *ARROW_SUFFIXES)

KINDS = {type(None): "null", bool: "true or false", str: "a text", list: "a list"}
"""Names of JSON values that are not objects."""


def read_file_rows(file: Path) -> Iterator[Located]:
    """The rows one by one; only a JSON list or table is held in memory as a whole."""
    name = strip_compression(file)
    try:
        if file.name.endswith(ARROW_SUFFIXES):
            yield from ((f"{file} row {number}", row) for number, row in enumerate(read_arrow_rows(file)))
            return
        with open_text(file) as stream:
            separator = next((sign for suffix, sign in SEPARATORS.items() if name.endswith(suffix)), None)
            yield from _json(file, stream) if separator is None else read_csv_rows(file, stream, separator)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {file}: {error}") from error


def _json(file: Path, stream: io.TextIOWrapper) -> Iterator[Located]:
    """A list of objects, one object per line, or one object over several lines; a single object in a .json file may be a table."""
    lines = ((number, line) for number, line in enumerate(iter(stream.readline, ""), 1) if line.strip())
    number, line = next(lines, (0, ""))
    if not number:
        return
    where = f"{file}:{number}"
    try:
        value = _parse(line, where)
    except DataError as error:
        value = _over_lines("\n" * (number - 1) + line, stream, error, file)
    later = next(lines, None)
    rows = value
    if isinstance(value, dict) and later is None and strip_compression(file).endswith(".json"):
        rows = find_table_rows(value)
    if isinstance(rows, list):
        if later is not None:
            raise DataError(f"{file}:{later[0]}: not JSON: text after the list that is the whole file")
        yield from ((f"{file} item {index}", _row(row)) for index, row in enumerate(rows))
        return
    yield where, _row(value)
    for number, line in chain([] if later is None else [later], lines):
        where = f"{file}:{number}"
        yield where, _row(_parse(line, where))


def _over_lines(line: str, stream: io.TextIOWrapper, error: DataError, file: Path) -> Any:
    """The value that begins on the first line and continues; the error of the first line where there is none."""
    if not line.lstrip().startswith(("[", "{")):
        raise error
    rest = stream.read()
    if not rest.strip():
        raise error
    try:
        return _parse(line + rest, str(file))
    except DataError as whole:
        raise (whole if line.lstrip().startswith("[") or line.strip() == "{" else error) from None


def _parse(text: str, where: str) -> Any:
    try:
        return parse_json(text.rstrip())
    except ValueError as error:
        if not is_utf8(text):
            raise DataError(f"{where}: not UTF-8") from error
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) and error.lineno > 1 else ""
        raise DataError(f"{where}{line}: not JSON: {error}") from error


def _row(value: object) -> PlainRow:
    if isinstance(value, BadCell):
        return PlainRow({"": value})
    if not isinstance(value, dict):
        return PlainRow({"": BadCell("missing_column", f"expected an object with named columns, found {KINDS.get(type(value), 'a number')}")})
    return PlainRow(value, value.names if isinstance(value, Repeated) else ())


WRAPPERS = ("data", "rows", "train", "examples", "records", "items", "instances")
"""Keys that may hold all rows of a file."""


def find_table_rows(whole: Json) -> list[Any] | None:
    """The rows of an object that is a table; None where the object is a row itself."""
    if isinstance(columns := whole.get("columns"), list) and isinstance(rows := whole.get("data"), list) and _lists_of(rows, len(columns)):
        return [dict(zip(map(str, columns), row, strict=True)) for row in rows]
    for name in WRAPPERS:
        if isinstance(rows := whole.get(name), list) and rows and all(isinstance(row, dict) for row in rows) and to_messages(rows) is None:
            return [row["row"] if isinstance(row.get("row"), dict) else row for row in rows]
    values = list(whole.values())
    if values and all(isinstance(value, list) and value and to_messages(value) is None for value in values):
        return _by_column(whole, range(len(values[0]))) if len({len(value) for value in values}) == 1 else None
    if values and all(isinstance(value, dict) and value and value.keys() == values[0].keys() for value in values):
        if all(name.isdecimal() for name in whole):
            return values
        return _by_column(whole, values[0]) if all(name.isdecimal() for name in values[0]) else None
    return None


def _lists_of(rows: list[Any], length: int) -> bool:
    return bool(rows) and all(isinstance(row, list) and len(row) == length for row in rows)


def _by_column(whole: Json, places: Iterable[Any]) -> list[Json]:
    return [{name: cells[place] for name, cells in whole.items()} for place in places]
