"""A round with given answers, samples and rewards."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finegrain.rounds.context import Drawn


@dataclass
class ToldRound:
    """What a method is told, and what it counts."""

    answers: Sequence[str]
    samples: Sequence[Sequence[str]]
    rewards: Sequence[Sequence[float]] = ()
    number: int = 1
    counted: dict[str, int] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)

    def given(self, role: str) -> Sequence[str]:
        self.asked["role"] = role
        return self.answers

    def sample(self, count: int, *, max_new_tokens: int, temperature: float = 1.0) -> list[list[Drawn]]:
        self.asked |= {"count": count, "max_new_tokens": max_new_tokens, "temperature": temperature}
        return [[Drawn(text, [1], True) for text in own[:count]] for own in self.samples]

    def score(self, reward: str, answers: Sequence[Sequence[str]]) -> np.ndarray:
        self.asked |= {"reward": reward, "scored": answers}
        return np.array(self.rewards, dtype=float)

    def leave_out(self, reason: str) -> None:
        self.note(f"left out: {reason}", 1)

    def note(self, name: str, count: int) -> None:
        self.counted[name] = self.counted.get(name, 0) + count
