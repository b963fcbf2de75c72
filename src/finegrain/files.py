"""Files that are whole under their names or not there, and a folder that one process at a time writes to."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from finegrain.errors import CheckpointError

WITHOUT_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.EINVAL})
"""What a disk without hard links answers (FAT, many network shares, Android)."""
LOCK = ".finegrain.lock"
ESCAPE = "backslashreplace"
"""A lone surrogate is written as the escape that JSON reads."""


PART = ".finegrain-part"


def replace_file(file: Path, text: str) -> None:
    """The text under this name, over what stood there; on disk when this returns."""
    part = file.with_name(f".{file.name}.{os.getpid()}{PART}")
    try:
        with part.open("w", encoding="utf-8", errors=ESCAPE) as stream:
            stream.write(text)
            _to_disk(stream)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def write_new(file: Path, parts: Iterable[str]) -> None:
    """The parts one after the other, as they come, under a name that must be free. What a killed process left of it is written over."""
    part = file.with_name(f".{file.name}{PART}")
    try:
        if part.is_symlink():
            part.unlink()
        with part.open("a", encoding="utf-8", errors=ESCAPE) as stream:
            if not _locked(stream) or not _still_there(stream, part):
                raise CheckpointError(f"another process is writing {file}; wait for it, or give another --out")
            try:
                stream.truncate(0)
                stream.writelines(parts)
                _to_disk(stream)
                if sys.platform == "win32":  # which renames and deletes closed files only
                    stream.close()
                _name_new(part, file)
            finally:
                if sys.platform == "win32":
                    stream.close()
                part.unlink(missing_ok=True)
    except FileExistsError as error:
        raise CheckpointError(f"{file} is there already; give another --out") from error
    except OSError as error:
        raise CheckpointError(f"cannot write {file}: {error}") from error


def clear_parts(folder: Path) -> None:
    """Take away what a killed process left unfinished in a folder that this process holds."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


def _to_disk(stream: IO[str]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _name_new(part: Path, file: Path) -> None:
    """Give a whole file its name, which must be free: by a hard link, or where the disk has none by taking the name first."""
    try:
        os.link(part, file)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        file.open("x").close()
        try:
            part.replace(file)
        except OSError:
            file.unlink(missing_ok=True)
            raise


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """This process alone writes to the folder until the end; a process that died holds nothing."""
    file = folder / LOCK
    try:
        stream = file.open("a")
    except OSError as error:
        raise CheckpointError(f"cannot write to {folder}: {error}") from error
    with stream:
        if not _locked(stream) or not _still_there(stream, file):
            raise CheckpointError(f"another process writes to {folder} now; wait for its end, or give another --out")
        clear_parts(folder)
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps open files, and a folder may be gone
                file.unlink()


def _still_there(stream: IO[str], file: Path) -> bool:
    """Whether the file that was locked still has its name: its last holder takes it away."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(stream.fileno()), file.stat())
    return False


def _locked(stream: IO[str]) -> bool:
    """Lock an open file, False where another process has; a disk that knows no locks refuses nobody."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EDEADLK)
        return True
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN)
    return True
