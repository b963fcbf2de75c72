"""Inverse RL in rounds: a reward learns demonstrations against the policy's own answers, then the policy learns that reward online.

Source: Li et al. 2024 (RFT), https://arxiv.org/abs/2405.17888; Cai et al. 2024 (AVA), https://arxiv.org/abs/2411.09341, whose reward is fitted
together with the policy.
Deviations: a round's reward starts from the start model, or with irl-sft from that of the round before (`warm`) [choice]. AVA's reward is read by an
online algorithm in place of its own policy term, as the mean over an answer's tokens [OURS]; ava-d reads demonstrations alone, and no samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from finegrain.checked import NonNegativeFloat, PositiveInt, checked
from finegrain.errors import UsageError
from finegrain.rounds.stages import Recipe, Stage, StagesTold

BY_TOKEN = {"method": "gaussian", "readout": {"choice": "mean"}}
"""Whose tokens' scores add up to the answer's."""
HEADS = {"irl-sft": "token", "ava-p": BY_TOKEN, "ava-d": BY_TOKEN}


@dataclass(frozen=True, kw_only=True)
@checked
class RewardRounds(Recipe):
    """Stages round-N/rows, round-N/reward and round-N/online for N = 1, 2, ..."""

    shape: ClassVar[str] = "demonstration"

    count: PositiveInt = 3
    """How many rounds."""
    rows: Literal["split", "all"] = "split"
    """split: each round reads a part of the rows of its own, of equal size; all: each reads all of them."""
    loss: Literal["irl-sft", "ava-p", "ava-d"] = "irl-sft"
    """What the reward learns from: irl-sft and ava-p, demonstrations against samples of the round's policy; ava-d, demonstrations alone."""
    warm: bool = True
    """Whether a round's reward goes on from that of the round before; of irl-sft alone: AVA's losses read logits, and a reward model has none."""
    temperature: NonNegativeFloat = 1.0
    """Of the samples that the reward learns from."""
    reward_lr: NonNegativeFloat | None = None
    """Peak rate of the reward model; by default the loss's own. --lr is that of the policy."""

    def check(self) -> None:
        """The reward is what the rounds make."""
        if self.reward:
            raise UsageError("rounds:reward-rounds trains its reward in every round; drop --rounds.reward")

    def __call__(self, told: StagesTold) -> Iterator[Stage]:
        """rows -> reward -> online, `count` times."""
        policy, judge = told.model, told.model
        for number in range(1, self.count + 1):
            name = f"round-{number}"
            rows = {"model": policy, "number": number, "count": self.count, "rows": self.rows, "max_new_tokens": self.max_new_tokens}
            yield Stage(f"{name}/rows", "rows", {**rows, "temperature": self.temperature})
            data = told.sampled(f"{name}/rows")
            learnt = {"model": judge, "data": data, "head": HEADS[self.loss], "loss": self.loss, "common": {"lr": self.reward_lr}}
            yield Stage(f"{name}/reward", "reward", learnt)
            online = {"model": policy, "data": data, "reward": [told.path(f"{name}/reward")], "credit": "head", "algorithm": "ppo"}
            yield Stage(f"{name}/online", "online", {**online, "sampling": {"max_new_tokens": self.max_new_tokens}})
            policy = told.trained(f"{name}/online")
            judge = told.path(f"{name}/reward") if self.warm and self.loss == "irl-sft" else told.model
