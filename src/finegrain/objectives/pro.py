"""PRO, preference ranking optimisation: each of K ranked answers against all that are ranked below it, plus likelihood of the best one.

    loss = sum over k of [ log(e^(s_k T_k) + sum over j > k of e^(s_j (R_k - R_j))) - s_k T_k ] + imitation (K - 1)^2 nll(best)
    s: average log-probability of an answer;   R: its reward;   T_k = max over j > k of R_k - R_j

Source: Song et al. 2023, https://arxiv.org/abs/2306.17492, as the baseline in the code of Baheti et al. 2023, https://arxiv.org/abs/2305.14718.
Deviations: rows may differ in K, which is that of the row in its second term too [choice]. Where the data give ranks alone, a reward is the
negative rank, so neighbours differ by 1 [OURS]. The exponents are summed by logsumexp. A row that keeps one answer has no loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from finegrain.checked import NonNegativeFloat, Range, checked
from finegrain.errors import DataError
from finegrain.ops.sequence import average_logp, kept_weight, sequence_logp
from finegrain.types import Pair, Term, Terms

Answers = Float[Tensor, "B K"]
Several = Annotated[int, Range(2.0, 64.0)]
REWARD = "ranked_reward/"
"""Before a role, the number of the rows that holds its reward; 0 where a row lacks the answer."""


def pro_ranking(scores: Answers, rewards: Answers, present: Bool[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """The first sum, the best answer first; answers that are not `present` take no part."""
    total = torch.zeros_like(scores[:, 0])
    for place in range(scores.shape[1] - 1):
        below = present[:, place + 1 :]
        counts = present[:, place] & below.any(-1)
        gaps = torch.where(below, rewards[:, place, None] - rewards[:, place + 1 :], -torch.inf)
        largest = torch.where(counts, gaps.amax(-1), 0.0)
        own = torch.where(counts, scores[:, place] * largest, 0.0)
        others = torch.where(below, scores[:, place + 1 :] * torch.where(below, gaps, 0.0), -torch.inf)
        against = torch.cat([own[:, None], torch.where(counts[:, None], others, -torch.inf)], -1).logsumexp(-1)
        total = total + torch.where(counts, against - own, 0.0)
    return total


def pro_imitation(best_nll: Float[Tensor, " B"], answers: Int[Tensor, " B"], *, weight: float) -> Float[Tensor, " B"]:
    """The second term: weight (K - 1)^2 times the summed negative log-likelihood of the answer to imitate."""
    return weight * (answers - 1).clamp(min=0).square().to(best_nll.dtype) * best_nll


@dataclass(frozen=True, kw_only=True)
class FromData:
    """Scores of the data (`score/<role>`) where every answer has one, else ranks; the run says which."""

    def __call__(self, columns: Mapping[str, np.ndarray], role: str, *, scored: bool) -> np.ndarray:
        """(N,) rewards of one answer of every row."""
        return columns[f"score/{role}"] if scored else -columns[f"rank/{role}"]


@dataclass(frozen=True, kw_only=True)
class ByRank:
    """The negative rank, whatever scores the data have."""

    def __call__(self, columns: Mapping[str, np.ndarray], role: str, *, scored: bool) -> np.ndarray:
        """(N,) rewards of one answer of every row."""
        return -columns[f"rank/{role}"]


@dataclass(frozen=True, kw_only=True)
@checked
class PRO:
    """Hyper-parameters of PRO."""

    needs: ClassVar[frozenset[str]] = frozenset()
    shape: ClassVar[str] = "ranked"
    learning_rate: ClassVar[float] = 1e-6
    """That of rrhf, which also ranks average log-probabilities."""

    answers: Several = 4
    """How many answers of a row are read, the best first; a row may have fewer."""
    imitation: NonNegativeFloat = 0.05
    """Weight of the likelihood of the best answer, times (K - 1)^2; 0 leaves only the ranking."""
    rewards: FromData | ByRank = field(default_factory=FromData)
    """from-data, scores where every answer has one, else ranks; or by-rank."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The answers that are read."""
        return tuple(f"answer-{place}" for place in range(1, self.answers + 1))

    @property
    def made(self) -> tuple[str, ...]:
        """Their rewards."""
        return tuple(REWARD + role for role in self.roles)

    def row_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rewards of the answers; raises DataError for one that is not finite, or that contradicts the ranks."""
        there = [role for role in self.roles if f"rank/{role}" in columns]
        scored = all(f"score/{role}" in columns for role in there)
        nothing = np.zeros(len(next(iter(columns.values()))))
        found, before = {}, None
        for role in there:
            exists = ~np.isnan(columns[f"rank/{role}"])
            reward = self.rewards(columns, role, scored=scored)
            if not np.isfinite(reward[exists]).all():
                raise DataError(f"pro reads a reward of every ranked answer, and {int((~np.isfinite(reward[exists])).sum())} of {role} are no number")
            if before is not None and (reward[exists] > before[exists]).any():
                raise DataError(
                    f"{int((reward[exists] > before[exists]).sum())} rows score {role} above the one before it; add objective.rewards:by-rank"
                )
            found[REWARD + role] = np.where(exists, reward, 0.0)
            before = reward
        return {**dict.fromkeys(self.made, nothing), **found}

    def __call__(self, pair: Pair) -> Float[Tensor, " B"]:
        """Per-row loss (B,)."""
        scores, rewards, present = self._answers(pair)
        several = (present.sum(-1) > 1) & present[:, 0]
        best = torch.where(several, -sequence_logp(pair.sides[self.roles[0]]), 0.0)
        return pro_ranking(scores, rewards, present) + pro_imitation(best, present.sum(-1), weight=self.imitation)

    def measures(self, pair: Pair) -> Terms:
        """Share of the pairs of answers with unequal rewards that average log-probabilities put in order."""
        scores, rewards, present = self._answers(pair)
        first, second = torch.triu_indices(self.answers, self.answers, 1)
        unequal = present[:, first] & present[:, second] & (rewards[:, first] > rewards[:, second])
        right = unequal & (scores[:, first] > scores[:, second])
        return {"ranks/accuracies": Term(right.sum(-1).to(scores.dtype), unequal.sum(-1).to(scores.dtype))}

    def _answers(self, pair: Pair) -> tuple[Answers, Answers, Bool[Tensor, "B K"]]:
        """Average log-probabilities, rewards, and which answers there are."""
        sides = [pair.sides[role] for role in self.roles]
        present = torch.stack([kept_weight(side) > 0 for side in sides], 1)
        scores = torch.stack([average_logp(side) for side in sides], 1)
        return scores, torch.stack([pair.columns[name].to(scores.dtype) for name in self.made], 1), present
