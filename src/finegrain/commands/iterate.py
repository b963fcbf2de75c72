"""Settings of `finegrain iterate`."""

from dataclasses import dataclass, field
from typing import Any

from finegrain.checked import NonNegativeFloat, checked
from finegrain.commands.training import PolicySettings
from finegrain.errors import UsageError
from finegrain.rounds.best_of_n import BestOfN
from finegrain.rounds.mistral_plus import MistralPlus
from finegrain.rounds.mpo import Mpo
from finegrain.rounds.reward_rounds import RewardRounds
from finegrain.rounds.self_play import SelfPlay
from finegrain.rounds.selm import Selm
from finegrain.rounds.stages import Recipe


@dataclass(frozen=True, kw_only=True)
@checked
class IterateSettings(PolicySettings):
    """Sample and train in rounds: each round's rows are made by the model as it is then, which is also the round's reference.

    rounds:self-play sets demonstrations against the model's own samples, rounds:best-of-n its best samples against its worst, rounds:selm ranks its
    greedy answer with those of a pair. Settings of training are those of every round. rounds:mpo, rounds:mistral-plus and rounds:reward-rounds are
    recipes of several stages, each a run of another command.
    """

    rounds: SelfPlay | BestOfN | Selm | Mpo | MistralPlus | RewardRounds = field(default_factory=SelfPlay)
    objective: Any = None
    """By default irl-sft for rounds:self-play, selm for rounds:selm, else dpo."""
    round_lr: tuple[NonNegativeFloat, ...] = ()
    """Peak learning rate of each round, one number per round; by default --lr for all."""

    def __post_init__(self) -> None:
        self.rounds.check()
        if isinstance(self.rounds, Recipe):
            self._check_recipe()
        elif self.round_lr and len(self.round_lr) != self.rounds.count:
            raise UsageError(f"--round-lr has {len(self.round_lr)} numbers for --rounds.count {self.rounds.count} rounds; give one per round")
        if self.round_lr and self.common.lr is not None:
            raise UsageError("--lr is the rate of all rounds, and --round-lr has one for each; give one of them")
        if self.training.shard:
            raise UsageError("--shard splits a model over processes, and rounds run in one; drop it")
        if self.lora.rank and self.lora.base != "checkpoint":
            raise UsageError(
                f"--lora.base {self.lora.base}: the adapter of a round is merged into its base for the next one, which 4 bits do not allow"
            )

    def _check_recipe(self) -> None:
        if self.round_lr:
            raise UsageError("--round-lr is for rounds that sample and train; a recipe has a rate for each kind of stage, e.g. --rounds.reward-lr")
        if self.common.eval is not None:
            raise UsageError("--eval: the stages of a recipe read different data; name it for a stage in --rounds.stages")
