"""AVA-p as a reward model: a token reward with uncertainty from preference pairs.

The policy that is trained with it is discarded; the score of an answer is its last token's mean reward.
Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 13, 14 and the CER auxiliary.
Deviations: those of `finegrain.objectives.ava_p`; the auxiliary is Bradley-Terry's log sigma by default [choice], since it alone ranks the
pairs that the reward model is evaluated on.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from finegrain.checked import checked
from finegrain.ops.balance import Balance
from finegrain.ops.bayesian_irl import BOUND
from finegrain.ops.contrast import ContrastSettings, LogSigmoid, Ranking
from finegrain.ops.reward_weight import weigh_pair
from finegrain.rewards.gaussian import EvidenceLoss, Gaussian
from finegrain.types import Pair, Terms


@dataclass(frozen=True, kw_only=True)
@checked
class AvaP(ContrastSettings, EvidenceLoss):
    """Hyper-parameters of AVA-p."""

    roles: ClassVar[tuple[str, ...]] = ("chosen", "rejected")

    ranking: Ranking = field(default_factory=LogSigmoid)
    """CER on the last tokens' mean rewards: log-sigmoid [choice], sigmoid (as printed)."""
    bound_in_head_only: bool = False
    """Likelihood, negative, KL and temporal differences train only the head, and only the ranking trains the backbone [OURS]."""

    def __call__(self, head: Gaussian, pair: Pair) -> Terms:
        """Likelihood, negative, KL, temporal-difference and CER terms."""
        return self._terms(self.inference, weigh_pair(head.reward_weight, pair))

    @property
    def balanced(self) -> Balance:
        """All terms except the ranking share one weight; without a ranking each has its given weight."""
        return Balance(bound=BOUND, rule=self.balance, bound_in_backbone=not self.bound_in_head_only)

    def measures(self, head: Gaussian, pair: Pair) -> dict[str, Tensor]:
        """For held-out answers: mean square of (temporal difference - mean) / std."""
        sides = weigh_pair(head.reward_weight, pair).sides.values()
        return {"td_square": torch.stack([self.inference.surprise(side) for side in sides]).nanmean(0)}
