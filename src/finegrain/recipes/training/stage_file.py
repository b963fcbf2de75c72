"""stage.safetensors of a run: the numbers that an objective's stage made of the rows, what it fitted, and what it did.

A resumed run reads it in place of sampling and scoring again.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from finegrain.errors import CheckpointError
from finegrain.files import PART
from finegrain.models.permissions import allow_readers
from finegrain.types import Json

STAGE = "stage.safetensors"
TRAIN, HELD_OUT = "train/", "held_out/"
"""Before the names of numbers of the training rows, and of those held out."""


class Staged(NamedTuple):
    """What a stage made."""

    train: Mapping[str, np.ndarray]
    """(N,) numbers of the training rows by name."""
    held_out: Mapping[str, np.ndarray]
    """The same of the held-out rows."""
    facts: Json
    """What it did, for run.json."""


def write_stage(folder: Path, staged: Staged, saved: Mapping[str, np.ndarray]) -> None:
    """Writes the file, complete or not at all. `saved`: further tensors, by names with a slash."""
    numbers = {prefix + name: values for prefix, own in ((TRAIN, staged.train), (HELD_OUT, staged.held_out)) for name, values in own.items()}
    tensors = {name: np.ascontiguousarray(values) for name, values in {**saved, **numbers}.items()}
    file = folder / STAGE
    part = file.with_name(f".{STAGE}.{os.getpid()}{PART}")
    try:
        save_file(tensors, part, metadata={"facts": json.dumps(staged.facts)})
        allow_readers(part)
        part.replace(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {file}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def read_stage(folder: Path, train: int, held_out: int) -> Staged | None:
    """What `write_stage` wrote for so many rows; None where it is absent, damaged, or of other rows."""
    try:
        with safe_open(folder / STAGE, framework="numpy") as stored:
            facts = json.loads(stored.metadata()["facts"])
            parts = [
                {name.removeprefix(prefix): stored.get_tensor(name) for name in stored.keys() if name.startswith(prefix)}
                for prefix in (TRAIN, HELD_OUT)
            ]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    fits = all(
        values.shape == (count,) and np.isfinite(values).all() for own, count in zip(parts, (train, held_out), strict=True) for values in own.values()
    )
    return Staged(parts[0], parts[1], facts) if fits and parts[0] and isinstance(facts, dict) else None
