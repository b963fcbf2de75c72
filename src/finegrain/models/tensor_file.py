"""A pair of files: tensors, and facts about them as JSON; both complete or absent."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from finegrain.errors import CheckpointError
from finegrain.files import replace_file
from finegrain.models.permissions import allow_readers


def save_with_facts(tensors: Mapping[str, Tensor], file: Path, facts: Mapping[str, Any], facts_file: Path) -> None:
    """Writes the facts first, because readers look for the tensors."""
    part = file.with_name(f"{file.name}.part")
    try:
        save_file(dict(tensors), part)
        allow_readers(part)
        replace_file(facts_file, json.dumps(facts, indent=1) + "\n")
        part.replace(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {file}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
