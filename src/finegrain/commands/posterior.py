"""Settings of `finegrain reward posterior`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finegrain.checked import PositiveFloat, PositiveInt, SequenceLength, checked
from finegrain.errors import UsageError


@dataclass(frozen=True, kw_only=True)
@checked
class PosteriorSettings:
    """Fit a Laplace posterior of a reward model's weights on the pairs it was trained on; `finegrain score` and `eval` then say a std."""

    run: Path
    """A reward model: the folder that `finegrain reward` wrote, or a checkpoint of one label."""
    data: str
    """The pairs it was trained on: json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name;
    several as "A + B"."""
    over: Literal["last-layer", "lora"] = "last-layer"
    """Weights that are unsure: the reward's last layer (exact), or the matrices of the adapter it was trained with (Laplace-LoRA, K-FAC)."""
    rank: PositiveInt = 10
    """Of `--over lora`: columns kept of each large factor of the curvature."""
    prior_variance: PositiveFloat | None = None
    """s2 of the weights; by default the one under which the pairs are most probable."""
    limit: PositiveInt | None = None
    """Read at most this many rows."""
    max_length: SequenceLength = 1024
    """Longest prompt + answer in tokens, as in training."""
    micro_tokens: PositiveInt = 2048
    """Tokens of one forward pass; `--over lora` takes a pair at a time."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """Arithmetic of the backbone; the posterior itself is float64."""

    def __post_init__(self) -> None:
        if self.prior_variance is not None and not 0 < self.prior_variance < float("inf"):
            raise UsageError(f"--prior-variance is positive and finite, got {self.prior_variance}")
        if self.rank < 1:
            raise UsageError(f"--rank counts columns of a factor, 1 or more, got {self.rank}")
