"""Settings of `finegrain inspect`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finegrain.checked import PositiveInt, checked
from finegrain.commands.settings import Compute


@dataclass(frozen=True, kw_only=True)
@checked
class InspectSettings(Compute):
    """One HTML page: of run directories, or of --model on --data without training."""

    runs: tuple[Path, ...] = ()
    """Run directories; several are shown side by side."""
    model: str | None = None
    """Checkpoint folder or Hub name to look at instead of a run: a policy or a reward model."""
    data: str | None = None
    """Its rows, in any format that training reads."""
    reference: str | None = None
    """A model to compare with, for log-ratios; it needs the same tokenizer."""
    out: Path | None = None
    """The page; for a single run RUN/report.html by default."""
    gradients: bool = False
    """Whether a training step moves both answers of each pair as wanted (gradient entanglement): about the work of training on --limit pairs."""
    objective: Any = None
    """The objective whose first step --gradients measures."""
    limit: PositiveInt = 200
    """Rows of --data that are scored."""
    trust_remote_code: bool = False
    """Run code that comes with a model; never do this for a model you have not read."""
