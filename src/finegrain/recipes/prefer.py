"""`finegrain prefer`: align a model on preference pairs (or on labelled answers) with any objective and any credit."""

from pathlib import Path
from typing import Any

from finegrain.commands.prefer import PreferSettings
from finegrain.commands.settings import Common, Training
from finegrain.credit.context import Credit
from finegrain.data.gate.settings import Gate
from finegrain.data.sources import Data
from finegrain.models.lora import Lora
from finegrain.objectives.dpo import DPO
from finegrain.recipes.entry import start_command, train
from finegrain.train.optim import Optim
from finegrain.types import Objective


def prefer(
    model: Any,
    data: Data,
    out: str | Path,
    *,
    objective: Objective = DPO(),
    credit: Credit | None = None,
    tokenizer: Any = None,
    common: Common = Common(),
    training: Training = Training(),
    lora: Lora = Lora(),
    optim: Optim = Optim(),
    gate: Gate = Gate(),
) -> dict[str, Any]:
    """Align a model on preference pairs; returns what the command prints as its last line.

    `model` is a path, a Hub name, or a model object with its `tokenizer`; `objective` any callable on a `Pair`.
    """
    own = {"objective": objective, "credit": credit, "common": common, "training": training, "lora": lora, "optim": optim, "gate": gate}
    return train(PreferSettings, "prefer", model, data, out, tokenizer, **own)


def run_prefer(settings: PreferSettings) -> dict[str, Any]:
    """The command: the settings as they were parsed."""
    return start_command("prefer", settings)
