"""Direct RLHF on a base model: a reward of helpful and harmless pairs, then PPO from the base with the base as reference, without fine-tuning.

Source: Zheng et al. 2024 (Mistral-Plus), https://arxiv.org/abs/2403.02513 (abstract and summaries; the paper's text was not read).
Deviations: the loop is ordinary PPO; every number here is ours [OURS]. Both controls of the claim are settings of the same recipe.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from finegrain.checked import NonNegativeFloat, PositiveFloat, ShareBelowOne, checked
from finegrain.errors import CheckpointError, UsageError
from finegrain.rounds.stages import Recipe, Stage, StagesTold, train_reward
from finegrain.types import Json


@dataclass(frozen=True, kw_only=True)
@checked
class MistralPlus(Recipe):
    """Stages dialogue, reward, before, sft, online and after; what `path` leaves out is left out."""

    path: Literal["direct", "sft", "sft-online"] = "direct"
    """direct: online training of the base; the controls: sft, fine-tuning alone, and sft-online, online training of the fine-tuned model."""
    template: str = "\n\nHuman: {prompt}\n\nAssistant:"
    """How a prompt is written for a model without a chat template; answers follow after a space."""
    stop: tuple[str, ...] = ("\n\nHuman:",)
    """Where an answer of a model without the habit of an end token ends."""
    missing_end: NonNegativeFloat = 1.0
    """What an answer loses that does not end, in units of the reward."""
    beta: NonNegativeFloat = 0.05
    """Weight of the KL to the reference, in units of the reward per nat."""
    kl_target: PositiveFloat | None = None
    """KL per token towards which the weight is adapted; by default it stays."""
    clip: PositiveFloat | None = 5.0
    """Largest size of an answer's reward."""
    retention: str = ""
    """Text file, a passage a line, whose likelihood says what the model has kept."""
    words: str = ""
    """File of words, one a line, that no answer should have."""
    held_out: ShareBelowOne = 0.1
    """Share of the prompts, at most 64, on which the axes are measured; nothing trains on their rows."""
    reward_lr: NonNegativeFloat | None = None
    """Peak rate of the reward model; by default the method's own."""
    sft_lr: NonNegativeFloat | None = None
    """Peak rate of fine-tuning; by default the method's own. --lr is that of the online stage."""

    def check(self) -> None:
        """A template with a place for the prompt."""
        super().check()
        if "{prompt}" not in self.template:
            raise UsageError("--rounds.template has no {prompt}, where the prompt is written")
        if not all(self.stop):
            raise UsageError("an empty --rounds.stop would end every answer before its first token")

    def __call__(self, told: StagesTold) -> Iterator[Stage]:
        """dialogue -> reward -> before -> [sft] -> [online] -> after."""
        yield Stage("dialogue", "dialogue", {"data": told.data, "template": self.template, "held_out": self.held_out})
        pairs, apart = f"{told.path('dialogue')}/pairs.jsonl", f"{told.path('dialogue')}/held-out.jsonl"
        if not self.reward:
            yield train_reward(told, data=pairs, common={"lr": self.reward_lr})
        axes: Json = {"prompts": apart, "reward": self.judge(told), "retention": self.retention, "words": self.words}
        axes |= {"stop": list(self.stop), "max_new_tokens": self.max_new_tokens}
        yield Stage("before", "axes", {**axes, "model": told.model})
        start = told.model
        if self.path != "direct":
            yield Stage("sft", "sft", {"model": start, "data": pairs, "common": {"lr": self.sft_lr}})
            start = told.trained("sft")
        if self.path != "sft":
            yield Stage("online", "online", self._online(told, start, pairs, apart))
            if self.path == "direct" and told.result("online")["model"]["sha256"] != told.result("before")["weights"]:
                raise CheckpointError("the model that online training began from, and was leashed to, has other weights than the base")
            start = told.trained("online")
        yield Stage("after", "axes", {**axes, "model": start})

    def _online(self, told: StagesTold, start: str, data: str, apart: str) -> dict[str, object]:
        control = {"choice": "fixed-beta"} if self.kl_target is None else {"choice": "adaptive-beta", "target": self.kl_target}
        clip = None if self.clip is None else [-self.clip, self.clip]
        return {
            "model": start,
            "data": data,
            "reward": [self.judge(told)],
            "algorithm": {"method": "ppo", "transforms": {"missing_end": self.missing_end, "clip": clip}},
            "leash": {"choice": "in-reward", "beta": self.beta, "control": control},
            "sampling": {"max_new_tokens": self.max_new_tokens, "stop": list(self.stop)},
            "common": {"eval": apart},
        }
