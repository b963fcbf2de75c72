"""Settings of `finegrain eval`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finegrain.checked import PositiveFloat, SequenceLength, checked
from finegrain.commands.settings import Compute
from finegrain.errors import UsageError
from finegrain.evaluate.accuracy import TieLoses, TieRule
from finegrain.evaluate.ensemble import Combiner, MemberMean
from finegrain.ops.aggregate import MeanReward, OfOneAnswer, check_aggregate
from finegrain.scoring.sources import is_text_source


@dataclass(frozen=True, kw_only=True)
@checked
class EvalSettings(Compute):
    """Test a reward on RewardBench, RewardBench 2 or any preference pairs: a reward model, a policy against its reference, or your own function."""

    reward: tuple[str, ...]
    """Reward model, or policy (with --reference), or file.py:name; several are standardised and then combined."""
    reference: str | None = None
    """The model the policies were trained from, with the same tokenizer; every --reward is then a policy."""
    reference_free: Literal["norm", "avg", "sum"] | None = None
    """Without a reference: every --reward is a policy, and scores by its tokens' log-probabilities (-L2 norm, mean, sum), as RewardBench does."""
    data: str
    """RewardBench rows, RewardBench 2 rows or any pairs: a file, a folder or a Hub name."""
    out: Path | None = None
    """File for everything that is printed, and every answer's score; it must not exist yet."""
    beta: PositiveFloat = 0.1
    """Scale of the log-ratio of policies; only calibration depends on it."""
    aggregate: OfOneAnswer = field(default_factory=MeanReward)
    """The score of an answer: the mean of the reward, or the mean less a penalty for uncertainty, as an optimiser would be given it."""
    ties: TieRule = field(default_factory=TieLoses)
    """Whether a pair with equal scores counts as wrong or as half right."""
    combiner: Combiner = field(default_factory=MemberMean)
    """How several rewards are combined into one."""
    max_length: SequenceLength = 2048
    """Longest prompt + answer in tokens; what is cut is counted."""

    def __post_init__(self) -> None:
        if not self.reward:
            raise UsageError("nothing to test: give --reward REWARD_MODEL, --reward POLICY --reference REF, or --reward file.py:name")
        if self.reference_free is not None and (self.reference is not None or any(is_text_source(source) for source in self.reward)):
            raise UsageError("--reference-free is for policies without a reference: drop --reference, and functions of your own")
        check_aggregate(self.aggregate, of_function=any(is_text_source(source) for source in self.reward))
