"""Settings that several commands share. Classes are frozen, and every field is read by every command that has it."""

from dataclasses import dataclass
from typing import Literal

from finegrain.checked import Epochs, NonNegativeFloat, NonNegativeInt, PositiveInt, Seed, SequenceLength, ShareBelowOne, checked
from finegrain.errors import UsageError

DType = Literal["auto", "float32", "bfloat16", "float64"]
"""Number formats that models compute in."""

MarginScale = Literal["median", "none"] | NonNegativeFloat
"""What the column `margin` is multiplied by: one over its median, nothing, or a number."""


@dataclass(frozen=True, kw_only=True)
@checked
class RowCount:
    """How many rows are read; inherited by commands that read text and no tokens."""

    limit: PositiveInt | None = None
    """Read at most this many rows."""


@dataclass(frozen=True, kw_only=True)
@checked
class RowLimits(RowCount):
    """How much of the data is read; inherited by commands that run no model."""

    max_length: SequenceLength = 1024
    """Longest prompt + answer in tokens; prompts are cut at their start, answers at their end."""


@dataclass(frozen=True, kw_only=True)
@checked
class Compute(RowLimits):
    """How much of the data is read, and where and in which number format models compute; inherited by every command that runs one."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: DType = "auto"
    """Number format: bfloat16 is autocast over float32 weights; auto is bfloat16 on a GPU and float32 on a CPU.

    Where bfloat16 products take longer than float32 ones on a processor, float32 is taken in their place, and a line says so.
    """


@dataclass(frozen=True, kw_only=True)
@checked
class Common(Compute):
    """Options that every training command has."""

    max_steps: PositiveInt | None = None
    """Stop after this many optimiser steps."""
    lr: NonNegativeFloat | None = None
    """Peak learning rate; by default the objective's own at width 4096, times 4096 / hidden size (times 10 with LoRA)."""
    seed: Seed = 0
    """Seed of data order, held-out rows and new parameters."""
    eval: str | None = None
    """Evaluation rows; by default a share of the data (`--holdout`)."""
    resume: bool = False
    """Continue from the newest checkpoint of --out."""
    dry_run: bool = False
    """Print plan, memory and time estimate, and stop."""


@dataclass(frozen=True, kw_only=True)
@checked
class Training:
    """How long training takes, its batches, evaluation and output."""

    epochs: Epochs = 1.0
    batch_size: PositiveInt = 16
    """Rows per optimiser step, over all processes."""
    micro_tokens: PositiveInt | None = None
    """Tokens of one forward pass; memory grows with it, results do not change. By default 2048, or more where the activations fit."""
    sample_by: str | None = None
    """Column whose numbers say how often a row is drawn, with replacement; rows of 0 are not read. By default every row once an epoch."""
    second_share: ShareBelowOne = 0.0
    """Share of every step that comes from the last source of --data, which starts again whenever it ends; 0 reads all sources as one."""
    train_only: str | None = None
    """Regular expression: parameters whose names have no match stay as they are. By default all train."""
    holdout: ShareBelowOne = 0.1
    """Share of the rows (at most 256, whole prompts) kept for evaluation when --eval is not given; 0 keeps none."""
    eval_every: NonNegativeInt = 0
    """Optimiser steps between evaluations of the held-out rows, in metrics.jsonl and the curves (the last step too); 0 evaluates at the end only."""
    keep: Literal["last", "best"] = "last"
    """Which step's model is written at the end: the last one, or the best one by --keep-by among those that were evaluated."""
    keep_by: str | None = None
    """Held-out result that says which step is best, e.g. eval_accuracy.

    By default eval_loss, of a reward model of pairs eval_nll, of ratings eval_rating_error.
    """
    patience: NonNegativeInt = 0
    """Stop after this many evaluations in a row without a better one; 0 takes all steps."""
    save_every: NonNegativeInt = 0
    """Optimiser steps between checkpoints; 0 saves at the end and on Ctrl-C only."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    shard: bool = False
    """Split weights, gradients and moments over the processes (FSDP2); such a run cannot be resumed."""
    diagnose_every: NonNegativeInt = 0
    """Optimiser steps between measurements of gradient entanglement on up to 8 pairs of a step, the first step included; 0 takes none.

    Each takes the work of about 8 pairs twice over, and memory for three gradients.
    """
    samples: NonNegativeInt = 5
    """Prompts answered before and after training; of a reward model held-out rows that it scores once it is saved."""
    examined: NonNegativeInt = 200
    """Rows whose tokens are recorded before and after training, for the report; 0 for none."""
    track: str = "none"
    """none, tensorboard, or another tracker by accelerate's name."""
    trust_remote_code: bool = False
    """Run code that comes with a model; never do this for a model you have not read."""

    def __post_init__(self) -> None:
        if self.shard and self.diagnose_every:
            raise UsageError("--diagnose-every measures gradients of whole parameters, which --shard splits; drop one of them")
        if self.shard and self.eval_every:
            raise UsageError("--shard splits the model, and --eval-every would gather it whole every time; drop one of them")
        if not self.eval_every:
            asked = {"--keep best": self.keep == "best", "--keep-by": self.keep_by is not None, "--patience": self.patience > 0}
            if found := [name for name, given in asked.items() if given]:
                raise UsageError(f"{' and '.join(found)}: there are no evaluations while training to go by; give --eval-every N")
        elif self.keep_by is not None and self.keep == "last" and not self.patience:
            raise UsageError(f"--keep-by {self.keep_by} is read by --keep best and by --patience, and neither was asked for")
