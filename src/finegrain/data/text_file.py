"""Text files as they are: gzip, byte order marks and line ends, and bytes that are no text."""

import gzip
import io
from pathlib import Path
from typing import Any

from finegrain.errors import DataError


def open_text(file: Path) -> io.TextIOWrapper:
    """Text with undecodable bytes kept as surrogates, so that the line that holds them can be named; line ends as they are."""
    raw: Any = gzip.open(file) if file.name.endswith(".gz") else file.open("rb")
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def check_utf8(text: str, where: str) -> None:
    """Refuse what `open_text` could not decode."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: not UTF-8") from error
