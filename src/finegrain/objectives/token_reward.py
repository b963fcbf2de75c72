"""What AVA-d and AVA-p declare alike: a policy with a head that gives every token a reward with its uncertainty."""

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
from finegrain.ops.reward_weight import RewardWeight, Uniform
from finegrain.types import Initialisation


@dataclass(frozen=True, kw_only=True)
@checked
class TokenRewardPolicy:
    """Settings of the evidence bound, and the head behind it."""

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    reward_head: ClassVar[str] = "gaussian"
    """The head that interprets the outputs, for scoring with the trained policy."""

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

    @property
    def make_head(self) -> Callable[[int, torch.Generator], nn.Module]:
        """(hidden size, generator) -> the reward's layer."""
        return partial(GaussianLayer, self.outputs)

    @property
    def start(self) -> Initialisation | None:
        """The initialisation of prior and head."""
        return self.inference.start(self.reward_weight)
