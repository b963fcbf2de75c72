"""Where rows come from: a json, jsonl, csv, tsv, parquet or arrow file, a folder of them, a saved dataset, or a dataset on the Hub.

A file that cannot be read, or a line that cannot be parsed, is a DataError that names file and line, raised when the reader
reaches it: rows are read one after the other and not kept. A cell that cannot be read is reported with its row.
"""

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from finegrain.data.arrow_rows import read_saved_rows
from finegrain.data.columns import list_names
from finegrain.data.file_rows import SUFFIXES, read_file_rows
from finegrain.data.hub import open_hub_table
from finegrain.data.records import Located
from finegrain.data.sources import check_one
from finegrain.data.text_file import strip_compression
from finegrain.errors import DataError

HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?(:(?P<split>[\w.-]+))?")
SAVED = ("state.json", "dataset_dict.json")
"""Files that identify a folder written by datasets' `save_to_disk`."""
METADATA = frozenset({"dataset_info.json", "dataset_infos.json", *SAVED, "metadata.json", "config.json", "package.json", "croissant.json"})
"""Metadata files beside rows."""
TRAINING = re.compile(r"(?<![a-z])train(?:ing|set)?(?![a-z])")
HELD_OUT = re.compile(r"(?<![a-z])(?:test(?:ing|set)?|val(?:id|idation)?|dev|eval(?:uation)?|held[-_]?out|hold[-_]?out)(?![a-z])")
"""Words in file names that name a held-out split; a file without one is training data."""


@dataclass
class Source:
    """Rows to be read, and what identifies them."""

    name: str
    """As given."""
    files: list[str]
    """File names, or the Hub name."""
    stream: Callable[[], Iterator[Located]]
    """Opens the rows from the first."""
    sha256: Callable[[], str]
    """SHA-256 of the files' whole content (a folder: of names and hashes), whatever the limit; for the Hub, of the rows that were read."""
    count: int = 0
    """Number of rows that the latest reading has returned so far."""

    @property
    def rows(self) -> Iterator[Located]:
        """The rows one by one, from the first on every access."""
        self.count = 0
        for row in self.stream():
            self.count += 1
            yield row
        if not self.count:
            raise DataError(f"{self.name} has no rows")


def read(source: str, limit: int | None = None) -> Source:
    """The rows of a file, a folder or a Hub name (`owner/set`, `owner/set:split`, `owner/set:config:split`), at most `limit`."""
    check_one(source)
    path = Path(source).expanduser()
    if path.is_dir() and any((path / name).is_file() for name in SAVED):
        return _saved(source, path, limit)
    if path.is_dir():
        files = _folder(path)
    elif path.is_file():
        files = [path]
    elif (match := HUB_NAME.fullmatch(source)) and not source.endswith(SUFFIXES) and not path.parent.is_dir():
        return _hub(source, match["name"], match["config"], match["split"], limit)
    else:
        raise _missing(source, path)
    stream = lambda: islice((row for file in files for row in read_file_rows(file)), limit)
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
    hint = f"; similar names: {', '.join(near)}" if near else f"; {folder} holds no {list_names(SUFFIXES)} files"
    return DataError(f"no file {source}{hint}")


def _saved(source: str, folder: Path, limit: int | None) -> Source:
    """A folder written by datasets' `save_to_disk`."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not _hidden(file.relative_to(folder)))
    stream = lambda: islice(((f"{folder} row {number}", row) for number, row in enumerate(read_saved_rows(folder))), limit)
    return Source(source, [file.relative_to(folder).as_posix() for file in files], stream, lambda: _content(folder, files))


def _hidden(file: Path) -> bool:
    """Whether a file is one that systems and programs leave in folders."""
    return any(part.startswith((".", "_", "~")) for part in file.parts)


def _folder(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name.endswith(SUFFIXES))
    files = [file for file in files if file.name not in METADATA and not _hidden(file.relative_to(folder))]
    if not files:
        raise DataError(f"folder {folder} holds no {list_names(SUFFIXES)} files")
    stems: dict[str, str] = {}
    for file in files:
        name = file.relative_to(folder).as_posix()
        stem = str(file.parent / strip_compression(file).rsplit(".", 1)[0])
        if stem in stems:
            raise DataError(f"folder {folder} holds {stems[stem]} and {name}, whose names suggest the same rows twice; pass the one you want")
        stems[stem] = name
    names = [file.relative_to(folder).as_posix().lower() for file in files]
    held_out = {part for name in names for part in HELD_OUT.findall(name)}
    others = any(TRAINING.search(name) or not HELD_OUT.search(name) for name in names)
    if held_out and len(held_out) + others > 1:
        found = f"{', '.join(sorted(held_out))}{' and training' if others else ''} files"
        raise DataError(f"folder {folder} mixes {found}, judging by their names; pass the file (or folder) you want to read")
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
    table = open_hub_table(name, config, split, limit)
    return Source(source, [":".join(part for part in (name, config, split) if part)], table.stream, table.sha256)
