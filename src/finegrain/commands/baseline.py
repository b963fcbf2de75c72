"""Settings of `finegrain score baseline`."""

from dataclasses import dataclass, field
from pathlib import Path

from finegrain.checked import SequenceLength, checked
from finegrain.commands.settings import Compute
from finegrain.errors import UsageError
from finegrain.ops.aggregate import MeanReward, OfOneAnswer, check_aggregate
from finegrain.scoring.sources import is_text_source


@dataclass(frozen=True, kw_only=True)
@checked
class BaselineSettings(Compute):
    """Score the answers of a fixed sampler, prompt by prompt.

    `finegrain score --baseline` and `finegrain online --baseline` then score other answers relative to them.
    """

    model: str | None = None
    """A reward model: checkpoint folder or Hub name."""
    reward: str | None = None
    """Your own function, file.py:name, in place of a model."""
    data: str
    """Rows {prompt, responses}: the answers of the sampler; or pairs or demonstrations, whose chosen or demonstrated answer is then the baseline."""
    out: Path
    """File for the identity of the reward and one JSON line per prompt; it must not exist yet."""
    aggregate: OfOneAnswer = field(default_factory=MeanReward)
    """One number of a score with members or a standard deviation; `finegrain online --baseline` needs the one that it trains on."""
    max_length: SequenceLength = 1024
    """Longest prompt + answer in tokens; answers that are scored relative to the baseline need the same --max-length."""

    def __post_init__(self) -> None:
        if (self.model is None) == (self.reward is None):
            raise UsageError("a baseline is of one reward: give --model REWARD_MODEL or --reward file.py:name")
        if self.reward is not None and not is_text_source(self.reward):
            raise UsageError(f"--reward takes your own function as file.py:name, got {self.reward!r}; a checkpoint is --model")
        check_aggregate(self.aggregate, of_function=self.reward is not None)
