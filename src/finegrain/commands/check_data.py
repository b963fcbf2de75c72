"""Settings of `finegrain check-data`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
    shape: Literal["preference", "unpaired", "demonstration", "rated", "steps", "ranked", "correction"] | None = None
    """Form in which the rows are read, where they can serve several: ranked and correction for QA-feedback, say; without it the rows' own."""
    out: Path | None = None
    """File for the whole report, with all row numbers; it must not exist yet."""
    gate: Gate = field(default_factory=Gate)
