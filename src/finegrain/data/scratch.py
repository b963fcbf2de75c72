"""Files without a name in the folder for temporary files ($TMPDIR), written once and read through a memory map.

They are freed with the last view of them, however the process ends; a full disk is reported as a DataError.
"""

import mmap
import tempfile
from contextlib import ExitStack, suppress
from typing import IO, Any

import numpy as np

from finegrain.errors import DataError

BUFFER = 1 << 18


def open_scratch(stack: ExitStack) -> IO[bytes]:
    """A new file, closed with the stack."""
    try:
        file: IO[bytes] = tempfile.TemporaryFile(buffering=BUFFER, prefix="finegrain-")
    except OSError as error:
        raise _no_room(error) from error
    stack.callback(_close, file)
    return file


def _close(file: IO[bytes]) -> None:
    """A map outlives its file; buffered data that does not fit on a full disk is discarded."""
    with suppress(OSError):
        file.close()


def write(file: IO[bytes], data: bytes) -> None:
    """Append."""
    try:
        file.write(data)
    except OSError as error:
        raise _no_room(error) from error


def map_file(file: IO[bytes], dtype: Any) -> np.ndarray:
    """The whole file as an array; copy on write, because torch requires writable memory."""
    try:
        file.flush()
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if file.tell() else bytearray()
    except OSError as error:
        raise _no_room(error) from error
    return np.frombuffer(whole, dtype=dtype)


def _no_room(error: OSError) -> DataError:
    folder = tempfile.gettempdir()
    return DataError(f"cannot keep the tokenised rows in {folder}: {error.strerror or error}; set TMPDIR to a folder on a disk with free space")
