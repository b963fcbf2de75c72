"""Several reward models vote on every pair; columns of the pair loss repair the doubtful labels.

Source: Wang et al. 2024, https://arxiv.org/abs/2401.06080, sections 2.1 and 2.2.
Deviations: members vote on pairs they did not train on [choice], unless set to train on all pairs;
see `finegrain.curate.strength` and `finegrain.curate.repairs`.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from finegrain.checked import PositiveInt, checked
from finegrain.curate.repairs import Margin, Repair
from finegrain.curate.strength import Strength, compute_strength, deciles
from finegrain.curate.votes import Linear, Votes, split_in_halves, train_on_all
from finegrain.errors import UsageError
from finegrain.ops.proportions import wilson
from finegrain.types import Json


@dataclass(frozen=True)
class Curated:
    """The repaired columns of N pairs."""

    strength: Strength
    columns: dict[str, Float[np.ndarray, " N"]]
    """strength_mean, strength_std, and the columns of the repair."""
    reasons: list[str]
    margins: Float[np.ndarray, "M N"]
    """The members' margins, NaN where a member did not vote."""

    def summary(self) -> Json:
        """Share of pairs with negative strength and its interval, deciles, and how many rows each column changes."""
        negative = wilson(self.strength.negative.astype(float))
        neutral = {"flip": 0.0, "margin": 0.0, "label_prob": 1.0}
        return {
            "negative_share": {"mean": negative.mean, "low": negative.low, "high": negative.high, "rows": negative.rows},
            "strength_deciles": deciles(self.strength.mean),
            "spread_deciles": deciles(self.strength.std),
            "votes_per_pair": [int(self.strength.votes.min()), int(self.strength.votes.max())],
            "changed": {name: int((self.columns[name] != value).sum()) for name, value in neutral.items() if name in self.columns},
        }


@dataclass(frozen=True, kw_only=True)
@checked
class SecretsRM:
    """Multi-model voting."""

    splits: PositiveInt = 5
    """Random splits of the prompts into halves; each half trains a model that scores the other half: 5 give 10 models, 5 votes per pair."""
    train_on: Literal["halves", "all"] = "halves"
    """halves: a model votes on pairs it did not train on. all: as in the paper, on all its training pairs (2 * splits votes per pair)."""
    votes: Votes = field(default_factory=Linear)
    """The kind of models: linear in the start model's features, or whole models."""
    repair: Repair = field(default_factory=Margin)
    """Columns: margin, flip, flip-margin, soft, soft-margin."""

    def __post_init__(self) -> None:
        if self.train_on == "all" and isinstance(self.votes, Linear):
            raise UsageError("linear models of the same pairs are identical; use method.votes:whole, or --method.train-on halves")

    def trained(self, prompts: np.ndarray, seed: int) -> Bool[np.ndarray, "M N"]:
        """Which pairs each member trains on."""
        return split_in_halves(prompts, self.splits, seed) if self.train_on == "halves" else train_on_all(prompts, self.splits)

    def voted(self, trained: Bool[np.ndarray, "M N"]) -> Bool[np.ndarray, "M N"]:
        """Which pairs each member votes on: those it did not train on, or all where every member trained on all."""
        return ~trained if self.train_on == "halves" else trained

    def __call__(self, margins: Float[np.ndarray, "M N"]) -> Curated:
        """Columns and reasons of the pairs, from the members' margins."""
        found = compute_strength(margins)
        repaired = self.repair(found)
        return Curated(found, {"strength_mean": found.mean, "strength_std": found.std, **repaired.columns}, repaired.reasons, margins)
