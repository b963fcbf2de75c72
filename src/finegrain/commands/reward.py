"""Settings of `finegrain reward`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finegrain.checked import checked
from finegrain.commands.settings import Common, MarginScale, Training
from finegrain.data.gate.settings import Gate
from finegrain.models.lora import Lora
from finegrain.rewards.meta_rm import Meta, NoMeta
from finegrain.train.optim import Optim

KEEP_TIES = Gate(tie="keep")
"""The pair loss reads the column `tie`."""


@dataclass(frozen=True, kw_only=True)
@checked
class RewardSettings:
    """Train a reward model: head:NAME says what it judges, loss:NAME what it learns from."""

    model: str
    """Checkpoint folder or Hub name of a causal language model, or of a reward model, whose head goes on training where it is the one asked for."""
    data: str
    """json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name; several as "A + B", with shares as "A=0.7 + B=0.3"."""
    out: Path
    """Run directory: the reward model in the stock classification layout, run.json, metrics.jsonl."""
    head: Any
    loss: Any = None
    meta: Meta = field(default_factory=NoMeta)
    """Where a step's gradient is taken: no-meta, meta-rm."""
    frozen: bool = False
    """Train the head alone, on features of the answers' last tokens that are computed once and cached; the backbone stays as it is."""
    margin_scale: MarginScale = "median"
    """What a pair's column margin is multiplied by: median makes the median margin of the data 1 nat, none takes margins as they are."""
    common: Common = field(default_factory=Common)
    training: Training = field(default_factory=Training)
    lora: Lora = field(default_factory=Lora)
    optim: Optim = field(default_factory=Optim)
    gate: Gate = field(default_factory=lambda: KEEP_TIES)
