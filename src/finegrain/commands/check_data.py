"""Settings of `finegrain check-data`."""

from dataclasses import dataclass, field
from pathlib import Path

from finegrain.checked import checked
from finegrain.commands.settings import RowLimits
from finegrain.data.gate.settings import Gate


@dataclass(frozen=True, kw_only=True)
@checked
class CheckDataSettings(RowLimits):
    """Look for what is wrong with data before anything is trained; with a model also for what is wrong with its tokens."""

    data: str
    """json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name; several as "A + B", with shares as "A=0.7 + B=0.3"."""
    model: str | None = None
    """Checkpoint folder or Hub name, of which only the tokenizer is read; without it the kinds that need tokens are not checked."""
    out: Path | None = None
    """File for the whole report, every row number in it; it must not exist yet."""
    gate: Gate = field(default_factory=Gate)
