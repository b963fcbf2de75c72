"""Permissions of files that libraries write: safetensors and temporary folders are readable by the owner only, whatever the umask."""

import os
from pathlib import Path


def allow_readers(*paths: Path) -> None:
    """Gives files, and folders with their content, the permissions that the umask allows new ones."""
    kept = os.umask(0o077)
    os.umask(kept)
    for path in paths:
        for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
            one.chmod((0o777 if one.is_dir() else 0o666) & ~kept)
