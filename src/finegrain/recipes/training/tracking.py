"""Logged lines to TensorBoard and the like, by accelerate."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from finegrain.errors import UsageError
from finegrain.recipes.session import Session
from finegrain.train.distributed import rank


@contextmanager
def trackers(session: Session, out: Path, settings: Mapping[str, Any]) -> Iterator[list[Callable[[dict[str, Any]], None]]]:
    """Watchers that send every logged line to the tracker that was asked for."""
    name = session.training.track
    if name == "none" or rank() != 0:
        yield []
        return
    try:
        session.accelerator = Accelerator(cpu=session.common.device == "cpu", log_with=name, project_dir=str(out))
        flat = {key: json.dumps(value) if isinstance(value, (dict, list)) else str(value) for key, value in settings.items()}
        session.accelerator.init_trackers("finegrain", config=flat)
    except (ValueError, ImportError) as error:
        raise UsageError(f"--track {name}: {error}") from error
    try:
        yield [lambda line: session.accelerator.log({k: v for k, v in line.items() if isinstance(v, (int, float))}, step=line["step"])]
    finally:
        session.accelerator.end_training()
