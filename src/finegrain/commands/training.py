"""Settings that training commands share."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finegrain.checked import checked
from finegrain.commands.settings import Common, Training
from finegrain.data.gate.settings import Gate
from finegrain.models.lora import Lora
from finegrain.train.optim import Optim


@dataclass(frozen=True, kw_only=True)
@checked
class TrainingSettings:
    """What every training command takes."""

    model: str
    """Checkpoint folder or Hub name; also the reference, always."""
    data: str
    """json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name; several as "A + B", with shares as "A=0.7 + B=0.3"."""
    out: Path
    """Run directory: the trained model, run.json, metrics.jsonl, samples.jsonl."""
    common: Common = field(default_factory=Common)
    training: Training = field(default_factory=Training)
    lora: Lora = field(default_factory=Lora)
    optim: Optim = field(default_factory=Optim)
    gate: Gate = field(default_factory=Gate)


@dataclass(frozen=True, kw_only=True)
@checked
class PolicySettings(TrainingSettings):
    """What commands that train a policy take."""

    objective: Any
    credit: Any = None
