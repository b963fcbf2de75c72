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

from finegrain.checked import NonNegativeFloat, checked
from finegrain.ops.action_values import Wanted
from finegrain.ops.balance import Balance, BalanceRule, StartShare
from finegrain.ops.bayesian_irl import BOUND, Inference
from finegrain.ops.contrast import LogSigmoid, Negative, Ranking, Unlikelihood, make_contrast_terms
from finegrain.ops.reward_weight import weigh_pair
from finegrain.rewards.gaussian import Gaussian
from finegrain.types import Initialisation, Pair, Terms


@dataclass(frozen=True, kw_only=True)
@checked
class AvaP:
    """Hyper-parameters of AVA-p."""

    roles: ClassVar[tuple[str, ...]] = ("chosen", "rejected")
    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    head_kind: ClassVar[type] = Gaussian

    inference: Inference = field(default_factory=Inference)
    """Weights and parts of the evidence bound."""
    negative: Negative = field(default_factory=Unlikelihood)
    """Term of the rejected answer: unlikelihood (bounded) [choice], literal (as printed), without-negative (the ablation)."""
    ranking: Ranking = field(default_factory=LogSigmoid)
    """CER on the last tokens' mean rewards: log-sigmoid [choice], sigmoid (as printed)."""
    cer: NonNegativeFloat = 1.0
    """Weight of the CER auxiliary, per pair; 0 is the ablation without it."""
    balance: BalanceRule = field(default_factory=StartShare)
    """The weight of the bound relative to the ranking: start-share, the ranking has half of the gradient at the start [OURS]; literal-weights."""
    bound_in_head_only: bool = False
    """Likelihood, negative, KL and temporal differences train only the head, and only the ranking trains the backbone [OURS]."""

    def action_value(self, head: Gaussian) -> Wanted | None:
        """The Q-values that the scorer must compute, in addition to log-probabilities."""
        return self.inference.needs_logits(head.reward_weight)

    def __call__(self, head: Gaussian, pair: Pair) -> Terms:
        """Likelihood, negative, KL, temporal-difference and CER terms."""
        return make_contrast_terms(self.inference, self.negative, self.ranking, self.cer, weigh_pair(head.reward_weight, pair))

    @property
    def balanced(self) -> Balance:
        """All terms except the ranking share one weight; without a ranking each has its given weight."""
        return Balance(bound=BOUND, rule=self.balance, bound_in_backbone=not self.bound_in_head_only)

    def start(self, head: Gaussian) -> Initialisation | None:
        """The initialisation of prior and head."""
        return self.inference.start(head.reward_weight)

    def measures(self, head: Gaussian, pair: Pair) -> dict[str, Tensor]:
        """For held-out answers: mean square of (temporal difference - mean) / std."""
        sides = weigh_pair(head.reward_weight, pair).sides.values()
        return {"td_square": torch.stack([self.inference.surprise(side) for side in sides]).nanmean(0)}
