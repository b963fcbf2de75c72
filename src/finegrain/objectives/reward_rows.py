"""Rows of one answer with a reward, as alol, r-lol, wbc and gold read them: where the reward comes from, and how rows are drawn by it.

Source: Baheti et al. 2023, https://arxiv.org/abs/2305.14718, and the authors' released code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from finegrain.checked import checked
from finegrain.errors import DataError
from finegrain.ops.sequence import sequence_logp
from finegrain.types import Pair, Ragged

Numbers = Float[np.ndarray, " N"]
REWARD, PRIORITY = "scored_reward", "priority"
"""Numbers of the rows that a stage makes: the answer's reward, and how often the row is drawn."""


@runtime_checkable
class RewardContext(Protocol):
    """As much as these methods ask of a run before training: `finegrain.rewards.columns.StageContext` says it."""

    @property
    def trains(self) -> bool:
        """Whether these are the training rows."""

    @property
    def seed(self) -> int:
        """The run's seed."""

    @property
    def device(self) -> torch.device:
        """Where the start model is."""

    @property
    def kept(self) -> dict[str, Any]:
        """What the call for the training rows leaves for the held-out rows."""

    @property
    def prompt_keys(self) -> np.ndarray:
        """(N,) equal where the tokens of two prompts are."""

    def take(self, rows: np.ndarray) -> "RewardContext":
        """The same of some rows."""

    def prompt_token_states(self) -> Ragged:
        """(P_i - 1, H) the start model's states of a prompt's tokens but the first."""

    def sample(self, count: int, *, max_new_tokens: int, temperature: float = 1.0) -> list[list[str]]:
        """By row, `count` answers of the start model."""

    def score(self, reward: str, answers: list[list[str]] | None = None) -> Mapping[str, np.ndarray]:
        """(N,) rewards of the rows' own answers by role, or of given ones by number."""

    def note(self, name: str, count: int) -> None:
        """Adds to a count."""

    def say(self, line: str) -> None:
        """A line for the person."""

    def record(self, facts: Mapping[str, Any]) -> None:
        """Facts for run.json."""

    def save(self, name: str, tensors: Mapping[str, np.ndarray]) -> None:
        """Keeps tensors of what was fitted."""


@dataclass(frozen=True, kw_only=True)
class OwnScale:
    """Rewards as they are."""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """The scores."""
        return scores


@dataclass(frozen=True, kw_only=True)
class SigmoidScale:
    """sigmoid(score), between 0 and 1: for scores of a reward model, as the authors use theirs."""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """The rewards."""
        half: np.ndarray = 0.5 * (1 + np.tanh(0.5 * scores))
        return half


@dataclass(frozen=True, kw_only=True)
class GoodPriority:
    """In proportion to the weight (an advantage or a reward), of demonstrations and of the chosen answers of pairs."""

    shape: ClassVar[str] = "demonstration"

    def __call__(self, weights: Numbers) -> Numbers:
        """How often rows are drawn: their weight, never below 0."""
        chance: Numbers = np.maximum(weights, 0.0)
        return chance


@dataclass(frozen=True, kw_only=True)
class AllPriority(GoodPriority):
    """In proportion to the weight, of chosen and rejected answers alike."""

    shape: ClassVar[str] = "unpaired"


@dataclass(frozen=True, kw_only=True)
class GoodRandom:
    """Uniformly among demonstrations, or chosen answers, whose weight is positive."""

    shape: ClassVar[str] = "demonstration"

    def __call__(self, weights: Numbers) -> Numbers:
        """1 for rows that are drawn."""
        return (weights > 0).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class EveryRow:
    """Every demonstration, or chosen answer, once an epoch, whatever its weight."""

    shape: ClassVar[str] = "demonstration"


Sampling = GoodPriority | AllPriority | GoodRandom | EveryRow


@dataclass(frozen=True, kw_only=True)
@checked
class RewardRows:
    """Settings of every method that learns from one answer and its reward."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    learning_rate: ClassVar[float] = 2e-5
    """That of nll, whose gradient is weighted here [choice]."""

    reward: str = "column:reward"
    """What scores an answer, as `finegrain score --reward` takes it: a checkpoint, file.py:name or column:NAME."""
    scale: OwnScale | SigmoidScale = field(default_factory=OwnScale)
    """own-scale, or sigmoid-scale: sigmoid(score), for a reward model."""
    sampling: Sampling = field(default_factory=GoodPriority)
    """good-priority, all-priority, good-random, or every-row."""

    @property
    def shape(self) -> str:
        """Of the rows: rejected answers take part in all-priority alone."""
        return self.sampling.shape

    @property
    def sample_by(self) -> str | None:
        """The number that draws rows."""
        return None if isinstance(self.sampling, EveryRow) else PRIORITY

    @property
    def made(self) -> tuple[str, ...]:
        """Numbers of the stage."""
        return (REWARD,) if isinstance(self.sampling, EveryRow) else (REWARD, PRIORITY)

    def _rewards(self, rows: RewardContext) -> Numbers:
        """Of the rows' own answers; raises DataError for one without."""
        found = self.scale(np.asarray(rows.score(self.reward)["answer"], dtype=np.float64))
        if missing := int((~np.isfinite(found)).sum()):
            raise DataError(f"the reward {self.reward} gives {missing} of {len(found)} answers no finite number; leave those rows out")
        return found

    def _drawn(self, rows: RewardContext, weights: Numbers, called: str) -> dict[str, Numbers]:
        """How often rows are drawn; what is left out is said and recorded."""
        negative = float((weights <= 0).mean())
        rows.record({"negative_share" if rows.trains else "held_out_negative_share": negative})
        if rows.trains:
            if negative == 1:
                raise DataError(f"no training row has a positive {called}, so there is nothing to learn from")
            left = "and are read all the same" if isinstance(self.sampling, EveryRow) else "and are not read"
            rows.say(f"{called}: {int((weights <= 0).sum())} of {len(weights)} training rows ({negative:.1%}) have none above 0 {left}")
        elif negative == 1:
            rows.say(f"{called}: no held-out row has one above 0, so the held-out loss says nothing of good answers")
        return {} if isinstance(self.sampling, EveryRow) else {PRIORITY: self.sampling(weights)}


@dataclass(frozen=True, kw_only=True)
@checked
class WeightedByReward(RewardRows):
    """Those that take the reward itself in place of an advantage."""

    @property
    def unbounded(self) -> str:
        """Where rows with a negative reward are read."""
        return "an answer with a negative reward becomes ever less likely" if isinstance(self.sampling, EveryRow) else ""

    def held_out_loss(self, pair: Pair) -> Float[Tensor, " B"]:
        """R N, of wbc: ratios and probabilities make the loss small where the policy finds an answer unlikely."""
        return -pair.columns[REWARD] * sequence_logp(pair.answer)

    def stage(self, rows: RewardContext) -> dict[str, Numbers]:
        """Rewards of the answers."""
        rewards = self._rewards(rows)
        return {REWARD: rewards, **self._drawn(rows, rewards, "reward")}
