"""The name of a result in one file of its own, looked at before the work."""

import os
from pathlib import Path

from finegrain.errors import CheckpointError


def check_free(out: Path, data: str = "") -> None:
    """Refuse, before the work, a name that is taken, cannot be written, or lies in the folder of the data, where it would be read as rows."""
    try:
        if data and os.path.isdir(data) and out.resolve().is_relative_to(Path(data).resolve()):
            raise CheckpointError(f"--out {out} is inside the folder that --data reads; give another --out")
        if out.exists() or out.is_symlink():
            raise CheckpointError(f"{out} is there already; give another --out")
        if not out.parent.is_dir():
            raise CheckpointError(f"cannot write {out}: there is no folder {out.parent}")
    except (OSError, ValueError) as error:  # a name that is too long, or holds what no name may
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"cannot write {out}: {error}") from error
    if not os.access(out.parent, os.W_OK):
        raise CheckpointError(f"cannot write {out}: {out.parent} may not be written to")
