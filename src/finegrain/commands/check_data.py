"""Settings of `finegrain check-data`."""

from dataclasses import dataclass, field
from pathlib import Path

from finegrain.checked import checked
from finegrain.commands.settings import RowLimits
from finegrain.data.gate.settings import Gate


@dataclass(frozen=True, kw_only=True)
@checked
class CheckDataSettings(RowLimits):
    """Find defects of a data file before anything is trained; with --model also defects of its tokens."""

    data: str
    """json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name; several as "A + B", with shares as "A=0.7 + B=0.3"."""
    model: str | None = None
    """Checkpoint folder or Hub name, of which only the tokenizer is read; without it, kinds of defects that need tokens are not checked."""
    out: Path | None = None
    """File for the whole report, with all row numbers; it must not exist yet."""
    gate: Gate = field(default_factory=Gate)
