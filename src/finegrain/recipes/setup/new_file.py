"""A result in one file of its own: whole under its name, or not there; never over another one."""

import os
from collections.abc import Iterable
from pathlib import Path

from finegrain.errors import CheckpointError


def check_free(out: Path) -> None:
    """Refuse, before the work, a name that is taken or cannot be written."""
    if out.exists():
        raise CheckpointError(f"{out} is there already; give another --out")
    if not out.parent.is_dir():
        raise CheckpointError(f"cannot write {out}: there is no folder {out.parent}")


def write_new(out: Path, parts: Iterable[str]) -> None:
    """The parts one after the other, as they come: written beside and linked under the name, which must be free."""
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.writelines(parts)
        os.link(part, out)
    except FileExistsError as error:
        raise CheckpointError(f"{out} is there already; give another --out") from error
    except OSError as error:
        raise CheckpointError(f"cannot write {out}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
