"""Text files: gzip and Zstandard, byte order marks and line ends, and invalid bytes."""

import gzip
import io
import re
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]

PACKED = ("", ".gz", ".zst")
"""Suffixes of text files: plain and compressed."""


def strip_compression(file: Path) -> str:
    """The name without the compression suffix."""
    return file.name.removesuffix(".gz").removesuffix(".zst")


def open_text(file: Path) -> io.TextIOWrapper:
    """Text with undecodable bytes kept as surrogates, so that the row that has them can be named; line ends unchanged."""
    return io.TextIOWrapper(_open(file), encoding="utf-8-sig", errors="surrogateescape", newline="")


def _open(file: Path) -> Any:
    if file.name.endswith(".gz"):
        return gzip.open(file)
    if file.name.endswith(".zst"):
        return io.BufferedReader(pyarrow.input_stream(str(file), compression="zstd"))
    return file.open("rb")


UNDECODED = re.compile("[\udc80-\udcff]")
"""What `open_text` writes in place of a byte that is not UTF-8."""


def find_invalid_text(text: str) -> str:
    """Why a text cannot be written as UTF-8; empty where it can."""
    if is_utf8(text):
        return ""
    return "bytes that are not UTF-8" if UNDECODED.search(text) else "half a surrogate pair, which is not valid text"


def is_utf8(text: str) -> bool:
    """Whether `open_text` could decode all of it."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True
