"""`finegrain prefer`: align a model on preference pairs (or on labelled answers) with any objective and any credit."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finegrain.models.adapters import Lora
from finegrain.recipes.settings import Common, Training
from finegrain.train.optim import Optim


@dataclass(frozen=True, kw_only=True)
class Prefer:
    """Align a model on preference pairs: objective:NAME and credit:NAME choose the method."""

    model: str
    """Checkpoint folder or Hub name; also the reference, always."""
    data: str
    """json, jsonl(.gz), csv or parquet file, a folder of them, or a Hub name."""
    out: Path
    """Run directory: the aligned model, run.json, metrics.jsonl, samples.jsonl."""
    objective: Any
    credit: Any = None
    common: Common = field(default_factory=Common)
    training: Training = field(default_factory=Training)
    lora: Lora = field(default_factory=Lora)
    optim: Optim = field(default_factory=Optim)
