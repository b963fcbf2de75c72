"""MPO: offline training on the pairs that a reward separates clearly, then online training on the prompts of the others, leashed to its result.

Source: Gou and Nguyen 2024, https://arxiv.org/abs/2403.19443 (abstracts of its versions).
Deviations: those of `finegrain.curate.mpo`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from finegrain.checked import NonNegativeFloat, Share, checked
from finegrain.errors import UsageError
from finegrain.rounds.stages import Recipe, Stage, StagesTold, train_reward


@dataclass(frozen=True, kw_only=True)
@checked
class Mpo(Recipe):
    """Stages reward, split, prefer and online; a stage without data is left out."""

    threshold: NonNegativeFloat | None = None
    """g: pairs with a margin above it, on either side, are easy. By default --rounds.hard decides."""
    hard: Share = 0.5
    """Share of the pairs that are hard, where there is no --rounds.threshold [choice]."""
    contradicted: Literal["drop", "keep", "swap"] = "drop"
    """What becomes of pairs whose margin is below -g."""
    votes: Literal["whole", "linear"] = "whole"
    """Kind of the models that score the pairs they did not train on; a --rounds.reward scores them itself."""
    reward_lr: NonNegativeFloat | None = None
    """Peak rate of the reward model; by default the method's own."""
    online_lr: NonNegativeFloat | None = None
    """Peak rate of the online stage; by default the algorithm's own. --lr is that of the offline stage."""

    def check(self) -> None:
        """A threshold or a share."""
        super().check()
        if self.threshold is not None and self.hard != 0.5:
            raise UsageError("--rounds.threshold and --rounds.hard both say which pairs are hard; give one of them")

    def __call__(self, told: StagesTold) -> Iterator[Stage]:
        """reward -> split -> prefer on easy pairs -> online on prompts of hard ones."""
        if not self.reward:
            yield train_reward(told, common={"lr": self.reward_lr})
        split = {"choice": "quantile", "share": self.hard} if self.threshold is None else {"choice": "threshold", "value": self.threshold}
        method = {"choice": "mpo", "split": split, "contradicted": self.contradicted, "reward": self.reward, "votes": {"choice": self.votes}}
        yield Stage("split", "curate", {"model": told.model, "data": told.data, "method": method})
        sets = told.result("split")["sets"]
        start = told.model
        if sets["easy"]:
            easy = {"model": start, "data": f"{told.path('split')}/rows.easy.jsonl", "objective": told.objective or "dpo"}
            yield Stage("prefer", "prefer", easy)
            start = told.trained("prefer")
        if sets["hard"]:
            settings = {"model": start, "data": f"{told.path('split')}/rows.hard.jsonl", "reward": [self.judge(told)], "algorithm": "ppo"}
            yield Stage("online", "online", {**settings, "common": {"lr": self.online_lr}, "sampling": {"max_new_tokens": self.max_new_tokens}})
