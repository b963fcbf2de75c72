"""Settings of `finegrain score`."""

from dataclasses import dataclass, field
from pathlib import Path

from finegrain.checked import PositiveFloat, checked
from finegrain.commands.settings import Compute
from finegrain.credit.reward_signals import Head, RewardSignal
from finegrain.errors import UsageError
from finegrain.ops.aggregate import MeanReward, OfOneAnswer, check_aggregate
from finegrain.ops.baseline import Contrast, Difference
from finegrain.ops.segmenters import Dynamic, Segmenter
from finegrain.scoring.sources import is_text_source


@dataclass(frozen=True, kw_only=True)
@checked
class ScoreSettings(Compute):
    """Score answers and their tokens: by a reward model, by the implicit reward of policies against a reference, or by your own function."""

    model: tuple[str, ...] = ()
    """A reward model; with --reference a policy, or several (std is then their standard deviation): checkpoint folders or Hub names."""
    reference: str | None = None
    """The model the policies were trained from, with the same tokenizer."""
    reward: str | None = None
    """Your own function, file.py:name, or a column of the data, column:NAME, in place of a model.

    --model then gives the tokenizer, for functions that return rewards per token.
    """
    data: str
    """json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name; pairs give two responses, other rows one."""
    out: Path
    """File for one JSON line per response; it must not exist yet."""
    beta: PositiveFloat = 0.1
    """Scale of the log-ratio of policies: the beta they were trained with."""
    signal: RewardSignal = field(default_factory=Head)
    """How a reward model scores tokens: head (its own token scores), or read from a model of whole answers."""
    aggregate: OfOneAnswer = field(default_factory=MeanReward)
    """The reward that an optimiser would be given for a score with a standard deviation; each line then has it as `reward`, beside mean and std."""
    segmenter: Segmenter = field(default_factory=Dynamic)
    """Where segments begin; by default at pivots of change."""
    baseline: Path | None = None
    """A file of `finegrain score baseline`, made with the same reward: each score is then also given relative to the baseline of its prompt."""
    contrast: Contrast = field(default_factory=Difference)
    """How a score is compared with the baseline."""
    normalise: bool = False
    """Subtract the mean of the run's held-out scores and divide by their standard deviation; scores of tokens stay as they are."""
    id: str | None = None
    """Column that names a row; by default its number."""

    def __post_init__(self) -> None:
        if self.reward is not None and not is_text_source(self.reward):
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
            raise UsageError("signal: applies to reward models only: a policy has one token score, its log-ratio, and a function returns its own")
        check_aggregate(self.aggregate, of_function=self.reward is not None)
        if self.baseline is not None and self.reference is not None:
            raise UsageError("--baseline goes with a reward model or a function; the implicit reward of policies is already relative to --reference")
        if self.baseline is None and self.contrast != Difference():
            raise UsageError("contrast: compares scores with a baseline; give --baseline FILE (finegrain score baseline)")
