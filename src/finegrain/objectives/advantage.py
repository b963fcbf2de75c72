"""The value that alol subtracts from rewards: fitted to rewards of the start model's own answers, or chosen to be something simpler.

Source: Baheti et al. 2023, https://arxiv.org/abs/2305.14718, and the authors' released code.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from finegrain.checked import NonNegativeFloat, PositiveFloat, PositiveInt, ShareBelowOne, checked
from finegrain.errors import DataError, UsageError
from finegrain.objectives.reward_rows import Numbers, OwnScale, RewardContext, SigmoidScale
from finegrain.ops.prompt_value import PromptValue, apply_value, fit_value
from finegrain.types import chunks

AT_ONCE = 256
"""Rows whose prompts' states are held at once."""
KEPT = "value"
Places = Int[np.ndarray, " n"]
Chosen = Float[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True)
@checked
class Sampled:
    """Rewards of answers that the start model gives."""

    samples: PositiveInt = 1
    """Answers per prompt; several, at a temperature above 0, make the target less noisy."""
    max_new_tokens: PositiveInt = 128
    """Of an answer."""
    temperature: NonNegativeFloat = 0.0
    """0 takes the most likely token."""

    def __post_init__(self) -> None:
        """The most likely answer is one."""
        if self.samples > 1 and not self.temperature:
            raise UsageError("several samples of a prompt are all alike at temperature 0; give a temperature, e.g. 1, or samples 1")

    def __call__(self, rows: RewardContext, places: Places, reward: str, scale: OwnScale | SigmoidScale, own: Numbers) -> Chosen:
        """(n,) mean reward of the samples of the prompts at these places; NaN where none has a reward."""
        asked = rows.take(places)
        answers = asked.sample(self.samples, max_new_tokens=self.max_new_tokens, temperature=self.temperature)
        found = scale(np.stack([np.asarray(one, dtype=np.float64) for one in asked.score(reward, answers).values()], 1))
        scored = np.isfinite(found)
        rows.note("samples_without_a_reward", int((~scored).sum()))
        count = scored.sum(1)
        return np.where(count > 0, np.where(scored, found, 0.0).sum(1) / np.maximum(count, 1), np.nan)


@dataclass(frozen=True, kw_only=True)
class DataRewards:
    """Rewards of the data's own answers to a prompt: the value of whoever wrote them, not of the start model. Nothing is sampled [OURS]."""

    def __call__(self, rows: RewardContext, places: Places, reward: str, scale: OwnScale | SigmoidScale, own: Numbers) -> Chosen:
        """(n,) mean reward of the answers to the prompts at these places."""
        _, prompt_of = np.unique(rows.prompt_keys, return_inverse=True)
        sums, counts = (np.bincount(prompt_of, weights=weights) for weights in (own, np.ones_like(own)))
        return np.asarray((sums / counts)[prompt_of[places]])


@dataclass(frozen=True, kw_only=True)
@checked
class FittedValue:
    """Attention over the states of the prompt's tokens, fitted to rewards."""

    targets: Sampled | DataRewards = field(default_factory=Sampled)
    """sampled: rewards of the start model's answers; data-rewards: of the data's own, without sampling."""
    prompts: PositiveInt = 1000
    """At most so many different training prompts are fitted to, drawn at random."""
    max_value: PositiveFloat = 1.0
    """The largest reward there is; the smallest is 0."""
    heads: PositiveInt = 8
    """Of the attention; they must divide the hidden size."""
    learning_rate: PositiveFloat = 1e-5
    """Adam's."""
    epochs: PositiveInt = 10
    """Over the prompts."""
    batch_size: PositiveInt = 16
    """Prompts of a step."""
    held_out: ShareBelowOne = 0.1
    """Share of the prompts by which the best epoch is chosen; 0: by the error on the fitted ones, as the authors do."""

    def check(self, reward: str) -> None:
        """Raises UsageError for a column, which scores the data's answers alone."""
        if isinstance(self.targets, Sampled) and reward.startswith("column:"):
            raise UsageError(
                f"the value is fitted to rewards of sampled answers, which {reward} cannot score; name a reward model or a function by "
                "--objective.reward, or choose a value without samples: objective.value.targets:data-rewards, or objective.value:mean-reward"
            )

    def __call__(self, rows: RewardContext, reward: str, scale: OwnScale | SigmoidScale, own: Numbers) -> Numbers:
        """(N,) values of the rows' prompts; fitted once, on the training rows."""
        if rows.trains:
            rows.kept[KEPT] = self._fit(rows, reward, scale, own)
        head: PromptValue = rows.kept[KEPT]
        parts = [apply_value(head, rows.take(np.arange(len(own))[part]).prompt_token_states()) for part in chunks(len(own), AT_ONCE)]
        return np.concatenate(parts)

    def _fit(self, rows: RewardContext, reward: str, scale: OwnScale | SigmoidScale, own: Numbers) -> PromptValue:
        _, first = np.unique(rows.prompt_keys, return_index=True)
        places = np.sort(np.random.default_rng([rows.seed, 4]).permutation(np.sort(first))[: self.prompts])
        targets = self.targets(rows, places, reward, scale, own)
        known = np.isfinite(targets)
        if not known.any():
            raise DataError(f"the reward {reward} gives no answer of the start model a number, so there is no value to fit")
        places, targets = places[known], targets[known]
        low, high = float(min(targets.min(), own.min())), float(max(targets.max(), own.max()))
        if low == high:
            raise DataError(f"every reward, of the data and of the answers behind the value, is {low:.4g}, so there is nothing to learn from")
        if low < 0 or high > self.max_value:
            raise UsageError(
                f"rewards lie between {low:.4g} and {high:.4g}, and the fitted value between 0 and max_value {self.max_value:g}; give "
                "objective.scale:sigmoid-scale for a reward model's scores, or --objective.value.max-value their largest"
            )
        fitted = fit_value(
            rows.take(places).prompt_token_states(),
            targets,
            heads=self.heads,
            max_value=self.max_value,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            batch_size=self.batch_size,
            held_out=self.held_out,
            seed=rows.seed,
            device=rows.device,
        )
        rows.record({"value": {**fitted.facts, "mean_target": float(targets.mean())}})
        rows.save("value_head", {name: tensor.cpu().numpy() for name, tensor in fitted.head.state_dict().items()})
        facts = fitted.facts
        told = [f"{facts['squared_error_held_out']:.4g} on {facts['prompts_held_out']} held-out prompts"] if facts["prompts_held_out"] else []
        told.append(f"{facts['squared_error_fitted']:.4g} on {facts['prompts_fitted']} fitted ones")
        rows.say(f"value: squared error {', '.join(told)}, of epoch {facts['epoch_kept']}")
        return fitted.head


@dataclass(frozen=True, kw_only=True)
class MeanReward:
    """The mean reward of the training rows, for every prompt; nothing is sampled and nothing fitted [OURS]."""

    def check(self, reward: str) -> None:
        """Every reward will do."""

    def __call__(self, rows: RewardContext, reward: str, scale: OwnScale | SigmoidScale, own: Numbers) -> Numbers:
        """(N,) the same number."""
        if rows.trains:
            rows.kept[KEPT] = float(own.mean())
            rows.record({"value": {"mean_target": rows.kept[KEPT]}})
        return np.full(len(own), rows.kept[KEPT])
