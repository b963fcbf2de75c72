"""Files that are written completely or not at all, and a lock that lets one process at a time write to a folder."""

import errno
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from finegrain.errors import CheckpointError

WITHOUT_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.EINVAL})
"""Errors on disks without hard links (FAT, many network shares, Android)."""
LOCK = ".finegrain.lock"
ESCAPE = "backslashreplace"
"""Writes a lone surrogate as its JSON escape."""


PART = ".finegrain-part"


def cache_folder() -> Path:
    """The folder of what is kept between runs (reference values, credit columns, measured products): $FINEGRAIN_CACHE, or the user's cache."""
    named = os.environ.get("FINEGRAIN_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "finegrain"


def replace_file(file: Path, text: str) -> None:
    """Writes the text to a file, replacing its content; it is on disk when this returns."""
    part = file.with_name(f".{file.name}.{os.getpid()}{PART}")
    try:
        with part.open("w", encoding="utf-8", errors=ESCAPE) as stream:
            stream.write(text)
            _to_disk(stream)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def write_new(file: Path, parts: Iterable[str]) -> None:
    """Writes the parts as they come to a file that must not exist. Leftovers of a killed process are overwritten."""
    part = file.with_name(f".{file.name}{PART}")
    try:
        if part.is_symlink():
            part.unlink()
        with part.open("a", encoding="utf-8", errors=ESCAPE) as stream:
            if not _locked(stream) or not _still_there(stream, part):
                raise CheckpointError(f"another process is writing {file}; wait for it, or choose another --out")
            try:
                stream.truncate(0)
                stream.writelines(parts)
                _to_disk(stream)
                if sys.platform == "win32":  # which renames and deletes only closed files
                    stream.close()
                _name_new(part, file)
            finally:
                if sys.platform == "win32":
                    stream.close()
                part.unlink(missing_ok=True)
    except FileExistsError as error:
        raise CheckpointError(f"{file} already exists; choose another --out") from error
    except OSError as error:
        raise CheckpointError(f"cannot write {file}: {error}") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside one that must not exist, under whose name it appears at the end, complete; absent after an error.

    Leftovers of a killed process are deleted.
    """
    part = folder.with_name(f".{folder.name}{PART}")
    try:
        if part.is_symlink():
            part.unlink()
        part.mkdir(exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot create {part}: {error}") from error
    with lock_folder(part):
        for old in part.iterdir():
            if old.name != LOCK:
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        try:
            yield part
            flush_folder(part)
            part.rename(folder)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if isinstance(error, OSError):
                taken = error.errno in (errno.EEXIST, errno.ENOTEMPTY)
                raise CheckpointError(f"{folder} already exists; choose another --out" if taken else f"cannot write {folder}: {error}") from error
            raise
        (folder / LOCK).unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Returns when all files below a folder are on disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def clear_parts(folder: Path) -> None:
    """Deletes what a killed process left unfinished in a folder that this process has locked."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


def _to_disk(stream: IO[str]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _name_new(part: Path, file: Path) -> None:
    """Renames a complete file to a name that must be free: by a hard link, or where the disk has none by creating the name first."""
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
def lock_folder(folder: Path) -> Iterator[None]:
    """Locks a folder so that only this process writes to it until the end; the lock of a process that died is released."""
    file = folder / LOCK
    try:
        stream = file.open("a")
    except OSError as error:
        raise CheckpointError(f"cannot write to {folder}: {error}") from error
    with stream:
        if not _locked(stream) or not _still_there(stream, file):
            raise CheckpointError(f"another process is writing to {folder}; wait for it, or choose another --out")
        clear_parts(folder)
        try:
            yield
        finally:
            with suppress(OSError):  # Windows does not delete open files, and the folder may be deleted already
                file.unlink()


def _still_there(stream: IO[str], file: Path) -> bool:
    """Whether the file that was locked still has its name: its last holder deletes it."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(stream.fileno()), file.stat())
    return False


def _locked(stream: IO[str]) -> bool:
    """Locks an open file; False where another process has locked it. On a disk without locks, always True."""
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
