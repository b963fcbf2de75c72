"""AVA-p: a policy and a token reward with uncertainty from preference pairs, by variational Bayesian inverse RL.

    minimise  -beta log B(y+) + negative(y-) + sum over both answers of [KL - lambda log q(delta)] + cer * ranking(mu_last(y+) - mu_last(y-))

Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 13, 14 and the CER auxiliary.
Deviations: the term of the rejected answer is bounded by default [choice]: the printed beta log B(y-) diverges, while the bound it
represents, log(1 - p), does not; and those of `finegrain.ops.bayesian_irl`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from finegrain.checked import NonNegativeFloat, checked
from finegrain.ops.action_values import Wanted
from finegrain.ops.balance import Balance, BalanceRule, StartShare
from finegrain.ops.bayesian_irl import BOUND, Inference
from finegrain.ops.contrast import Negative, Ranking, Sigmoid, Unlikelihood, make_contrast_terms
from finegrain.ops.gaussian_layer import GaussianLayer
from finegrain.ops.reward_weight import RewardWeight, Uniform, weigh_pair
from finegrain.types import Initialisation, Pair, Terms


@dataclass(frozen=True, kw_only=True)
@checked
class AvaP:
    """Hyper-parameters of AVA-p."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    reward_head: ClassVar[str] = "gaussian"
    """The head that interprets the outputs, for scoring with the trained policy."""
    learning_rate: ClassVar[float] = 1e-6
    """[choice] That of `dpo`; the paper's is unknown to us."""

    inference: Inference = field(default_factory=Inference)
    """Weights and parts of the evidence bound."""
    negative: Negative = field(default_factory=Unlikelihood)
    """Term of the rejected answer: unlikelihood (bounded) [choice], literal (as printed), without-negative (the ablation)."""
    ranking: Ranking = field(default_factory=Sigmoid)
    """CER on the last tokens' mean rewards: sigmoid (as printed), log-sigmoid [choice], whose gradient does not vanish on mis-ordered pairs."""
    cer: NonNegativeFloat = 1.0
    """Weight of the CER auxiliary, per pair; 0 is the ablation without it."""
    balance: BalanceRule = field(default_factory=StartShare)
    """The weight of the bound relative to the ranking: start-share, the ranking has half of the gradient at the start [OURS]; literal-weights."""
    reward_weight: RewardWeight = field(default_factory=Uniform)
    """The factor on a token's Q and reward during training: uniform, or attention (eq. 11), which a policy cannot use during generation."""

    @property
    def outputs(self) -> int:
        """Mean and log standard deviation of each token's reward, and the inputs of the weight."""
        return 2 + self.reward_weight.columns

    @property
    def action_value(self) -> Wanted | None:
        """The Q-values that the scorer must compute, in addition to log-probabilities."""
        return self.inference.needs_logits(self.reward_weight)

    def __call__(self, pair: Pair) -> Terms:
        """Likelihood, negative, KL, temporal-difference and CER terms."""
        return make_contrast_terms(self.inference, self.negative, self.ranking, self.cer, weigh_pair(self.reward_weight, pair))

    @property
    def balanced(self) -> Balance:
        """All terms except the ranking share one weight; without a ranking each has its given weight."""
        return Balance(bound=BOUND, rule=self.balance)

    @property
    def make_head(self) -> Callable[[int, torch.Generator], nn.Module]:
        """(hidden size, generator) -> the reward's layer."""
        return partial(GaussianLayer, self.outputs)

    @property
    def start(self) -> Initialisation | None:
        """The initialisation of prior and head."""
        return self.inference.start(self.reward_weight)
