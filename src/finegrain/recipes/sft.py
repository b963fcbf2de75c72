"""`finegrain sft`: fine-tune on demonstrations, or on the chosen side of pairs, under any credit."""

from pathlib import Path
from typing import Any

from finegrain.commands.settings import Common, Training
from finegrain.commands.sft import SftSettings
from finegrain.credit.context import Credit
from finegrain.data.gate.settings import Gate
from finegrain.data.sources import Data
from finegrain.models.lora import Lora
from finegrain.objectives.nll import NLL
from finegrain.recipes.entry import start_command, train
from finegrain.train.optim import Optim
from finegrain.types import Objective


def sft(
    model: Any,
    data: Data,
    out: str | Path,
    *,
    objective: Objective = NLL(),
    credit: Credit | None = None,
    tokenizer: Any = None,
    common: Common = Common(),
    training: Training = Training(),
    lora: Lora = Lora(),
    optim: Optim = Optim(),
    gate: Gate = Gate(),
) -> dict[str, Any]:
    """Fine-tune a model on demonstrations; arguments and result as those of `prefer`."""
    own = {"objective": objective, "credit": credit, "common": common, "training": training, "lora": lora, "optim": optim, "gate": gate}
    return train(SftSettings, "sft", model, data, out, tokenizer, **own)


def run_sft(settings: SftSettings) -> dict[str, Any]:
    """The command: the settings as they were parsed."""
    return start_command("sft", settings)
