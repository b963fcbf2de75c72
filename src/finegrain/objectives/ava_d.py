"""AVA-d: a policy and a token reward with uncertainty from demonstrations alone, by variational Bayesian inverse RL.

Source: Cai et al. 2024, https://arxiv.org/abs/2411.09341, eq. 5 to 7; base: AVRIL, https://arxiv.org/abs/2102.06483.
Deviations: those of `finegrain.ops.bayesian_irl`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from finegrain.checked import checked
from finegrain.ops.action_values import Wanted
from finegrain.ops.bayesian_irl import Inference
from finegrain.ops.gaussian_layer import GaussianLayer
from finegrain.ops.reward_weight import RewardWeight, Uniform, weigh_pair
from finegrain.types import Initialisation, Pair, Terms


@dataclass(frozen=True, kw_only=True)
@checked
class AvaD:
    """Hyper-parameters of AVA-d."""

    roles: ClassVar[tuple[str, ...]] = ("answer",)
    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    reward_head: ClassVar[str] = "gaussian"
    """The head that interprets the outputs, for scoring with the trained policy."""
    learning_rate: ClassVar[float] = 2e-5
    """[choice] That of `nll`, which it extends; the paper's is unknown to us."""

    inference: Inference = field(default_factory=Inference)
    """Weights and parts of the evidence bound."""
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
        """Likelihood, KL and temporal-difference terms."""
        answer = weigh_pair(self.reward_weight, pair).answer
        return {"likelihood": self.inference.demonstrated(answer), **self.inference.bound([answer], pair.state)}

    @property
    def make_head(self) -> Callable[[int, torch.Generator], nn.Module]:
        """(hidden size, generator) -> the reward's layer."""
        return partial(GaussianLayer, self.outputs)

    @property
    def start(self) -> Initialisation | None:
        """The initialisation of prior and head."""
        return self.inference.start(self.reward_weight)
