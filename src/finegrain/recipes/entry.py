"""From the settings of a training command to its run, for the command line and for Python."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from finegrain.configure import to_json
from finegrain.data.sources import Data, format_sources
from finegrain.recipes.quiet import quiet_transformers
from finegrain.recipes.training.align import align
from finegrain.recipes.training.job import Job


def train(kind: Callable[..., Any], command: str, model: Any, data: Data, out: str | Path, tokenizer: Any, **settings: Any) -> dict[str, Any]:
    """Run `prefer` or `sft` from Python; `kind`: the class of the settings."""
    made = kind(model=model_name(model), data=format_sources(data), out=Path(out), **settings)
    return start(command, made, model=model, tokenizer=tokenizer)


def start(command: str, settings: Any, *, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Run the settings of `prefer` or `sft`; returns what is printed as the last line of stdout."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)} | {"model": model}
    return align(Job(command=command, settings=to_json(settings), tokenizer=tokenizer, **values))


def start_command(command: str, settings: Any) -> dict[str, Any]:
    """The same for settings from the command line, where only our own lines are printed."""
    quiet_transformers()
    return start(command, settings, model=settings.model, tokenizer=None)


def model_name(model: Any) -> str:
    """The name of a model in the record: its path or Hub name, or "in memory"."""
    return str(model) if hasattr(model, "__fspath__") or isinstance(model, str) else "in memory"
