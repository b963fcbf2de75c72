"""Where rows come from: a json, jsonl(.gz), csv or parquet file, a folder of them, or a set on the Hub.

A file that cannot be read, or a line that cannot be parsed, is a DataError that names file and line, raised when the reading
comes to it: rows are read one after the other and forgotten.
"""

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from finegrain.data.file_rows import SUFFIXES, file_rows
from finegrain.data.hub import hub_table
from finegrain.data.records import Located
from finegrain.errors import DataError

HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?(:(?P<split>[\w.-]+))?")
PARTS = re.compile(r"(?<![a-z])(train|test|valid|validation|dev|eval)(?![a-z])")


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
    stream = lambda: islice((row for file in files for row in file_rows(file)), limit)
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


def _hub(source: str, name: str, config: str | None, split: str | None, limit: int | None) -> Source:
    """`owner/set:split` where only one word follows the name."""
    if split is None:
        config, split = None, config or "train"
    table = hub_table(name, config, split, limit)
    return Source(source, [":".join(part for part in (name, config, split) if part)], table.stream, table.sha256)
