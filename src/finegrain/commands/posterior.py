"""Settings of `finegrain reward posterior`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finegrain.checked import PositiveFloat, PositiveInt, checked
from finegrain.commands.settings import Compute


@dataclass(frozen=True, kw_only=True)
@checked
class PosteriorSettings(Compute):
    """Fit a Laplace posterior of a reward model's weights on the pairs it was trained on; `finegrain score` and `eval` then report a std."""

    run: Path
    """A reward model: the folder that `finegrain reward` wrote, or a checkpoint of one label."""
    data: str
    """The pairs it was trained on: json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name;
    several as "A + B"."""
    over: Literal["last-layer", "lora"] = "last-layer"
    """Weights that the posterior is over: the last layer (exact), or the matrices of the adapter that was trained (Laplace-LoRA, K-FAC)."""
    rank: PositiveInt = 10
    """With `--over lora`: columns kept of each large factor of the curvature."""
    prior_variance: PositiveFloat | None = None
    """Prior variance of the weights; by default the value that maximises the evidence of the pairs."""
    micro_tokens: PositiveInt = 2048
    """Tokens of one forward pass; `--over lora` takes a pair at a time."""
