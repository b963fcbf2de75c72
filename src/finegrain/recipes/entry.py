"""From the settings of a training command to its run, for the command line and for Python."""

from dataclasses import fields
from typing import Any

import transformers

from finegrain.configure import to_json
from finegrain.recipes.training.align import align
from finegrain.recipes.training.job import Job


def start(command: str, settings: Any, *, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Run the settings of `prefer` or `sft`; returns what is printed as the last line of stdout."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)} | {"model": model}
    return align(Job(command=command, settings=to_json(settings), tokenizer=tokenizer, **values))


def start_command(command: str, settings: Any) -> dict[str, Any]:
    """The same for settings from the command line, where only our own lines are printed."""
    quiet_transformers()
    return start(command, settings, model=settings.model, tokenizer=None)


def quiet_transformers() -> None:
    """Switch off progress bars and warnings of transformers."""
    transformers.utils.logging.disable_progress_bar()
    if transformers.logging.get_verbosity() != transformers.logging.ERROR:  # to set it is slow: every logger of the process forgets its level
        transformers.logging.set_verbosity_error()


def model_name(model: Any) -> str:
    """The name of a model in the record: its path or Hub name, or "in memory"."""
    return str(model) if hasattr(model, "__fspath__") or isinstance(model, str) else "in memory"
