"""Settings of `finegrain score`."""

from dataclasses import dataclass, field
from pathlib import Path

from finegrain.checked import PositiveFloat, checked
from finegrain.commands.settings import Compute
from finegrain.errors import UsageError
from finegrain.ops.aggregate import MeanReward, OfOneAnswer
from finegrain.ops.baseline import Contrast, Difference
from finegrain.ops.segmenters import Dynamic, Segmenter
from finegrain.scoring.aggregation import check_aggregate
from finegrain.scoring.function_file import is_function
from finegrain.scoring.signals import Head, RewardSignal


@dataclass(frozen=True, kw_only=True)
@checked
class ScoreSettings(Compute):
    """Score answers token by token: by a reward model, by the implicit reward of policies against a reference, or by your own function."""

    model: tuple[str, ...] = ()
    """A reward model; with --reference a policy, or several, whose spread is then the std: checkpoint folders or Hub names."""
    reference: str | None = None
    """The model the policies were trained from, with the same tokenizer."""
    reward: str | None = None
    """Your own function, file.py:name, in place of a model; --model then only gives the tokenizer of rewards per token."""
    data: str
    """json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name; pairs give two responses, other rows one."""
    out: Path
    """File for one JSON line per response; it must not exist yet."""
    beta: PositiveFloat = 0.1
    """Scale of the log-ratio of policies: the beta they were trained with."""
    signal: RewardSignal = field(default_factory=Head)
    """What a reward model's token scores are."""
    aggregate: OfOneAnswer = field(default_factory=MeanReward)
    """What an optimiser would be shown of a score that knows its uncertainty: it then stands in the lines as `reward`, beside mean and std."""
    segmenter: Segmenter = field(default_factory=Dynamic)
    """Where segments begin; by default at pivots of change."""
    baseline: Path | None = None
    """What `finegrain score baseline` wrote of the same reward: every score then also says how far it is from its prompt's baseline."""
    contrast: Contrast = field(default_factory=Difference)
    """How it is compared with the baseline."""
    normalise: bool = False
    """Subtract the mean of the run's held-out scores and divide by their standard deviation; scores of tokens stay as they are."""
    id: str | None = None
    """Column that names a row; by default its number."""

    def __post_init__(self) -> None:
        if self.reward is not None and not is_function(self.reward):
            raise UsageError(f"--reward takes your own function as file.py:name, got {self.reward!r}; a checkpoint is --model")
        if self.reward is None and not self.model:
            raise UsageError("nothing to score with: give --model REWARD_MODEL, --model POLICY --reference REF, or --reward file.py:name")
        if self.reward is not None and (self.reference is not None or len(self.model) > 1):
            raise UsageError("--reward is your own function: it takes no --reference, and at most one --model, for its tokenizer")
        if self.reference is None and len(self.model) > 1:
            raise UsageError("several --model are policies and need --reference; reward models are scored one at a time")
        if self.normalise and (self.reward is not None or self.reference is not None or self.baseline is not None):
            raise UsageError("--normalise reads the mean and std that a reward model's run found: drop --reward, --reference and --baseline")
        if not isinstance(self.signal, Head) and (self.reference is not None or self.reward is not None):
            raise UsageError("signal: is about reward models; policies have one token score, their log-ratio, and functions say their own")
        check_aggregate(self.aggregate, of_function=self.reward is not None)
        if self.baseline is not None and self.reference is not None:
            raise UsageError("--baseline is of a reward model or function; the implicit reward of policies is relative to its --reference already")
        if self.baseline is None and self.contrast != Difference():
            raise UsageError("contrast: compares scores with a baseline, and there is none: give --baseline FILE (finegrain score baseline)")
