"""Settings of `finegrain reward`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finegrain.checked import checked
from finegrain.commands.settings import MarginScale
from finegrain.commands.training import TrainingSettings
from finegrain.data.gate.settings import Gate
from finegrain.rewards.meta_rm import Meta, NoMeta

KEEP_TIES = Gate(tie="keep")
"""The pair loss reads the column `tie`."""


@dataclass(frozen=True, kw_only=True)
@checked
class RewardSettings(TrainingSettings):
    """Train a reward model: head:NAME says what it judges, loss:NAME what it learns from."""

    model: str
    """Checkpoint folder or Hub name of a causal language model, or of a reward model; its head goes on training if it is the head named here."""
    out: Path
    """Run directory: the reward model in the stock classification layout, run.json, metrics.jsonl."""
    head: Any
    loss: Any = None
    meta: Meta = field(default_factory=NoMeta)
    """Where the gradient of a step is taken: no-meta, meta-rm."""
    frozen: bool = False
    """Train the head alone, on features of the last tokens of the answers, computed once and cached; the backbone stays as it is."""
    margin_scale: MarginScale = "median"
    """Factor of the data column `margin`: median makes the median margin of the data 1 nat, none takes margins as they are."""
    gate: Gate = field(default_factory=lambda: KEEP_TIES)
